// A doubly linked list of parts over the piece, and a heap of candidate pairs by (rank, position).
//
// A candidate is stale when one of its parts has grown or gone since it was pushed; it then holds the length
// that the pair had, which no longer agrees. Short pieces (nearly all) use a scan over a small array instead:
// for n up to kScanBytesMax the quadratic scan is faster than a heap, and allocates nothing.
#include "harmony/bpe.h"

#include <algorithm>
#include <array>
#include <queue>

#include "base/assert.h"

namespace capstan::harmony {
namespace {

constexpr std::size_t kScanBytesMax = 48;

TokenId byte_token(const Vocabulary& vocabulary, std::string_view piece, std::size_t i) {
  const auto id = vocabulary.find(piece.substr(i, 1));
  CAPSTAN_ASSERT(id.has_value());  // loading checks missing_byte()
  return *id;
}

void encode_by_scan(const Vocabulary& vocabulary, const Merges& merges, std::string_view piece,
                    std::vector<TokenId>& out) {
  struct Part {
    std::uint32_t begin;
    TokenId token;
    Merges::Joined next;  // of this part with the one after it
  };
  std::array<Part, kScanBytesMax> parts;
  std::size_t count = piece.size();
  const auto end_of = [&](std::size_t i) { return i + 1 < count ? parts[i + 1].begin : piece.size(); };
  const auto refresh = [&](std::size_t i) {
    parts[i].next = {Merges::kNoRank, 0};
    if (i + 1 >= count) return;
    const std::string_view bytes = piece.substr(parts[i].begin, end_of(i + 1) - parts[i].begin);
    parts[i].next = merges.find(vocabulary, parts[i].token, parts[i + 1].token, bytes);
  };
  for (std::size_t i = 0; i < count; ++i)
    parts[i] = {static_cast<std::uint32_t>(i), byte_token(vocabulary, piece, i), {}};
  for (std::size_t i = 0; i < count; ++i) refresh(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (parts[i].next.rank < parts[best].next.rank) best = i;
    }
    if (parts[best].next.rank == Merges::kNoRank) break;
    parts[best].token = parts[best].next.token;
    std::copy(parts.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              parts.begin() + static_cast<std::ptrdiff_t>(count),
              parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    refresh(best);
    if (best > 0) refresh(best - 1);
  }
  for (std::size_t i = 0; i < count; ++i) out.push_back(parts[i].token);
}

struct Candidate {
  std::uint32_t rank;
  std::uint32_t left;    // index of the left part
  std::uint32_t length;  // of both parts when pushed
  TokenId token;
};
struct LaterFirst {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }
};

class HeapMerge {
 public:
  HeapMerge(const Vocabulary& vocabulary, const Merges& merges, std::string_view piece)
      : vocabulary_(vocabulary), merges_(merges), piece_(piece), parts_(piece.size()) {
    for (std::uint32_t i = 0; i < parts_.size(); ++i) {
      parts_[i] = {byte_token(vocabulary, piece, i), 1, i + 1, i - 1};  // the first's previous is kNone
    }
    for (std::uint32_t i = 0; i + 1 < parts_.size(); ++i) push(i);
  }

  void run(std::vector<TokenId>& out) {
    while (!heap_.empty()) {
      const Candidate candidate = heap_.top();
      heap_.pop();
      Part& left = parts_[candidate.left];
      if (left.length == 0 || left.next >= parts_.size()) continue;
      const Part right = parts_[left.next];
      if (left.length + right.length != candidate.length) continue;
      // Equal lengths could still hide another split of the same bytes; the pair itself decides.
      const auto joined =
          merges_.find(vocabulary_, left.token, right.token, bytes(candidate.left, candidate.length));
      if (joined.rank != candidate.rank || joined.token != candidate.token) continue;
      parts_[left.next].length = 0;
      left = {candidate.token, candidate.length, right.next, left.previous};
      if (right.next < parts_.size()) {
        parts_[right.next].previous = candidate.left;
        push(candidate.left);
      }
      if (left.previous != kNone) push(left.previous);
    }
    for (std::uint32_t i = 0; i < parts_.size(); i = parts_[i].next) out.push_back(parts_[i].token);
  }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  struct Part {
    TokenId token;
    std::uint32_t length;  // 0: joined into another
    std::uint32_t next;
    std::uint32_t previous;
  };

  std::string_view bytes(std::uint32_t begin, std::uint32_t length) const {
    return piece_.substr(begin, length);
  }

  void push(std::uint32_t left) {
    const Part& right = parts_[parts_[left].next];
    const std::uint32_t length = parts_[left].length + right.length;
    const auto joined = merges_.find(vocabulary_, parts_[left].token, right.token, bytes(left, length));
    if (joined.rank != Merges::kNoRank) heap_.push({joined.rank, left, length, joined.token});
  }

  const Vocabulary& vocabulary_;
  const Merges& merges_;
  std::string_view piece_;
  std::vector<Part> parts_;  // part i begins at byte i of the piece
  std::priority_queue<Candidate, std::vector<Candidate>, LaterFirst> heap_;
};

}  // namespace

void Merges::add(TokenId left, TokenId right, TokenId joined) {
  const std::uint64_t key =
      static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  pairs_.emplace(key, Joined{next_rank_++, joined});
}

void Merges::drop_specials(const Vocabulary& vocabulary) {
  std::erase_if(pairs_, [&](const auto& pair) { return vocabulary.is_special(pair.second.token); });
}

Merges::Joined Merges::find(const Vocabulary& vocabulary, TokenId left, TokenId right,
                            std::string_view bytes) const {
  if (!listed_) {
    const auto id = vocabulary.find(bytes);
    return id ? Joined{static_cast<std::uint32_t>(*id), *id} : Joined{kNoRank, 0};
  }
  const std::uint64_t key =
      static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  const auto at = pairs_.find(key);
  return at == pairs_.end() ? Joined{kNoRank, 0} : at->second;
}

void encode_piece(const Vocabulary& vocabulary, const Merges& merges, bool whole_first,
                  std::string_view piece, std::vector<TokenId>& out) {
  if (piece.empty()) return;
  if (whole_first || piece.size() == 1) {
    if (const auto whole = vocabulary.find(piece)) {
      out.push_back(*whole);
      return;
    }
  }
  if (piece.size() <= kScanBytesMax) {
    encode_by_scan(vocabulary, merges, piece, out);
  } else {
    CAPSTAN_ASSERT(piece.size() < UINT32_MAX);
    HeapMerge(vocabulary, merges, piece).run(out);
  }
}

}  // namespace capstan::harmony

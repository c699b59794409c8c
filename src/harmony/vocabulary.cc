// Entries by id, and two hash maps by bytes whose keys are views into one arena.
//
// Added tokens are searched position by position: a table of first bytes skips most positions, then each
// distinct length is tried, longest first, by hash. There are a thousand specials but some fifteen lengths.
#include "harmony/vocabulary.h"

#include <algorithm>

namespace capstan::harmony {

std::string_view Vocabulary::keep(std::string bytes) { return arena_.emplace_back(std::move(bytes)); }

Result<void> Vocabulary::add(TokenId id, std::string bytes) {
  if (id < 0 || id >= kTokenIdEnd)
    return fail(Code::kCorrupt, "token id {} is outside 0..{}", id, kTokenIdEnd - 1);
  if (bytes.empty()) return fail(Code::kCorrupt, "token {} has no bytes", id);
  if (is_used(id)) return fail(Code::kCorrupt, "token id {} is given twice", id);
  const std::string_view view = keep(std::move(bytes));
  const auto [at, fresh] = ordinary_.emplace(view, id);
  if (!fresh) return fail(Code::kCorrupt, "tokens {} and {} have the same bytes", at->second, id);
  if (static_cast<std::size_t>(id) >= entries_.size()) entries_.resize(static_cast<std::size_t>(id) + 1);
  entries_[static_cast<std::size_t>(id)] = {view, Kind::kOrdinary};
  return {};
}

Result<void> Vocabulary::add_added(TokenId id, std::string content, bool special) {
  if (id < 0 || id >= kTokenIdEnd)
    return fail(Code::kCorrupt, "token id {} is outside 0..{}", id, kTokenIdEnd - 1);
  if (content.empty()) return fail(Code::kCorrupt, "added token {} has no content", id);
  if (static_cast<std::size_t>(id) >= entries_.size()) entries_.resize(static_cast<std::size_t>(id) + 1);
  Entry& entry = entries_[static_cast<std::size_t>(id)];
  if (entry.kind == Kind::kAdded || entry.kind == Kind::kSpecial) {
    return fail(Code::kCorrupt, "added token id {} is given twice", id);
  }
  // tokenizer.json of GPT-2's family lists specials in the vocabulary too. They leave the ordinary map, so
  // that no merge and no user's text can produce them.
  if (special && entry.kind == Kind::kOrdinary) ordinary_.erase(entry.bytes);
  const std::string_view view = keep(std::move(content));
  const auto [at, fresh] = added_.emplace(view, id);
  if (!fresh) return fail(Code::kCorrupt, "added tokens {} and {} are both \"{}\"", at->second, id, view);
  entry = {view, special ? Kind::kSpecial : Kind::kAdded};
  added_first_bytes_[static_cast<unsigned char>(view.front())] = true;
  const auto same = std::ranges::find(added_lengths_, view.size(), &AddedLength::length);
  if (same == added_lengths_.end()) {
    added_lengths_.push_back({view.size(), !special});
    std::ranges::sort(added_lengths_, std::greater{}, &AddedLength::length);
  } else if (!special) {
    same->any_plain = true;
  }
  return {};
}

std::optional<TokenId> Vocabulary::find(std::string_view bytes) const {
  const auto at = ordinary_.find(bytes);
  return at == ordinary_.end() ? std::nullopt : std::optional(at->second);
}

std::optional<TokenId> Vocabulary::find_added(std::string_view content) const {
  const auto at = added_.find(content);
  return at == added_.end() ? std::nullopt : std::optional(at->second);
}

std::string_view Vocabulary::bytes(TokenId id) const {
  return is_used(id) ? entries_[static_cast<std::size_t>(id)].bytes : std::string_view{};
}

bool Vocabulary::is_special(TokenId id) const {
  return is_used(id) && entries_[static_cast<std::size_t>(id)].kind == Kind::kSpecial;
}

bool Vocabulary::is_used(TokenId id) const {
  return id >= 0 && id < size() && entries_[static_cast<std::size_t>(id)].kind != Kind::kGap;
}

std::optional<std::uint8_t> Vocabulary::missing_byte() const {
  for (int byte = 0; byte < 256; ++byte) {
    const char character = static_cast<char>(byte);
    if (!find(std::string_view(&character, 1))) return static_cast<std::uint8_t>(byte);
  }
  return std::nullopt;
}

std::optional<Vocabulary::AddedMatch> Vocabulary::next_added(std::string_view text, std::size_t from,
                                                             bool specials) const {
  const bool any =
      specials ? !added_lengths_.empty() : std::ranges::any_of(added_lengths_, &AddedLength::any_plain);
  if (!any) return std::nullopt;
  for (std::size_t offset = from; offset < text.size(); ++offset) {
    if (!added_first_bytes_[static_cast<unsigned char>(text[offset])]) continue;
    for (const AddedLength& candidate : added_lengths_) {
      if (candidate.length > text.size() - offset || (!specials && !candidate.any_plain)) continue;
      const auto id = find_added(text.substr(offset, candidate.length));
      if (id && (specials || !is_special(*id))) return AddedMatch{offset, candidate.length, *id};
    }
  }
  return std::nullopt;
}

}  // namespace capstan::harmony

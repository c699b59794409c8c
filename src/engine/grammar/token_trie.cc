// Tokens sorted by bytes are a preorder; each adds the nodes behind what it shares with the one before.
#include "engine/grammar/token_trie.h"

#include <algorithm>

namespace capstan::engine {
namespace {

constexpr std::size_t kTokenBytesMax = 255;

// Length of the UTF-8 character that begins here; 0 if none does.
std::size_t character_bytes(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (size == 0 || lead > 0xF4 || text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((at(i) & 0xC0) != 0x80) return 0;
  if (lead == 0xE0 && at(1) < 0xA0) return 0;
  if (lead == 0xED && at(1) > 0x9F) return 0;
  if (lead == 0xF0 && at(1) < 0x90) return 0;
  if (lead == 0xF4 && at(1) > 0x8F) return 0;
  return size;
}

// Characters of plain text; 0 if it is not plain.
std::uint32_t plain_characters(std::string_view text) {
  std::uint32_t count = 0;
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text.front());
    if (lead < 0x20 || lead == '"' || lead == '\\') return 0;
    const std::size_t size = character_bytes(text);
    if (size == 0) return 0;
    text.remove_prefix(size);
    ++count;
  }
  return count;
}

struct Entry {
  std::string_view bytes;
  std::int32_t token;
};

std::vector<TokenTrie::Node> build(const std::vector<Entry>& sorted) {
  std::vector<TokenTrie::Node> nodes;
  std::vector<std::size_t> path;  // nodes from the root to the last one
  std::string_view before;
  for (const Entry& entry : sorted) {
    const std::size_t shared =
        static_cast<std::size_t>(std::ranges::mismatch(entry.bytes, before).in1 - entry.bytes.begin());
    for (; path.size() > shared; path.pop_back())
      nodes[path.back()].subtree_end = static_cast<std::uint32_t>(nodes.size());
    for (std::size_t i = shared; i < entry.bytes.size(); ++i) {
      path.push_back(nodes.size());
      nodes.push_back({0, -1, static_cast<std::uint8_t>(entry.bytes[i]), static_cast<std::uint8_t>(i + 1)});
    }
    nodes.back().token = entry.token;
    before = entry.bytes;
  }
  for (; !path.empty(); path.pop_back())
    nodes[path.back()].subtree_end = static_cast<std::uint32_t>(nodes.size());
  return nodes;
}

}  // namespace

TokenTrie::TokenTrie(const std::vector<std::string_view>& token_bytes, std::vector<MarkToken> marks)
    : bytes_(token_bytes), marks_(std::move(marks)), text_(mask_words(), 0), quoted_(mask_words(), 0) {
  std::vector<Entry> all, not_plain;
  std::vector<std::uint32_t> characters(bytes_.size(), 0);
  int single_bytes = 0;
  for (std::size_t id = 0; id < bytes_.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    if (bytes_[id].empty() || bytes_[id].size() > kTokenBytesMax || mark(token) < kSymbols) continue;
    single_bytes += bytes_[id].size() == 1;
    all.push_back({bytes_[id], token});
    add_token(text_, token);
    if (bytes_[id].find('"') != std::string_view::npos) add_token(quoted_, token);
    characters[id] = plain_characters(bytes_[id]);
    if (characters[id] == 0 || characters[id] > kPlainCharactersMax) not_plain.push_back(all.back());
  }
  has_all_bytes_ = single_bytes == 256;
  const auto by_bytes = [](const Entry& a, const Entry& b) { return a.bytes < b.bytes; };
  std::ranges::sort(all, by_bytes);
  std::ranges::sort(not_plain, by_bytes);
  all_ = build(all);
  not_plain_ = build(not_plain);
  plain_.assign(kPlainCharactersMax, TokenMask(mask_words(), 0));
  for (std::size_t id = 0; id < bytes_.size(); ++id) {
    if (characters[id] == 0) continue;
    for (std::size_t count = characters[id]; count <= kPlainCharactersMax; ++count)
      add_token(plain_[count - 1], static_cast<std::int32_t>(id));
  }
}

const TokenMask& TokenTrie::plain(std::uint32_t characters) const {
  return plain_[std::clamp<std::uint32_t>(characters, 1, kPlainCharactersMax) - 1];
}

std::string_view TokenTrie::bytes(std::int32_t token) const {
  return token < 0 || static_cast<std::size_t>(token) >= bytes_.size()
             ? std::string_view()
             : bytes_[static_cast<std::size_t>(token)];
}

Symbol TokenTrie::mark(std::int32_t token) const {
  for (const MarkToken& mark : marks_)
    if (mark.token == token) return mark.symbol;
  return kSymbols;
}

std::int32_t TokenTrie::token_of(Symbol symbol) const {
  for (const MarkToken& mark : marks_)
    if (mark.symbol == symbol) return mark.token;
  return -1;
}

}  // namespace capstan::engine

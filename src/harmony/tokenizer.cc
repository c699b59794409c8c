// Encoding is three cuts: at added tokens, by the pre-tokenizer's patterns, and by byte-pair encoding.
#include "harmony/tokenizer.h"

#include "base/file.h"
#include "base/text.h"
#include "harmony/tokenizer_parts.h"

namespace capstan::harmony {

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  CAPSTAN_TRY(const std::string text, read_file(tokenizer_json, 256u << 20));
  auto tokenizer = from_json(text);
  if (!tokenizer) return std::unexpected(std::move(tokenizer.error()).with_context(tokenizer_json.string()));
  return tokenizer;
}

void Tokenizer::encode_ordinary(std::string_view text, std::vector<TokenId>& out) const {
  std::string prefixed;
  if (parts_->cutter.add_prefix_space() && !text.empty() && text.front() != ' ') {
    prefixed = " " + std::string(text);
    text = prefixed;
  }
  for (const std::string_view piece : parts_->cutter.cut(text)) {
    encode_piece(parts_->vocabulary, parts_->merges, parts_->whole_first, piece, out);
  }
}

namespace {

template <class Ordinary>
void encode_around_added(const Vocabulary& vocabulary, std::string_view text, bool specials,
                         std::vector<TokenId>& out, const Ordinary& ordinary) {
  std::size_t at = 0;
  while (const auto added = vocabulary.next_added(text, at, specials)) {
    ordinary(text.substr(at, added->offset - at));
    out.push_back(added->id);
    at = added->offset + added->length;
  }
  ordinary(text.substr(at));
}

}  // namespace

void Tokenizer::encode_to(std::string_view text, std::vector<TokenId>& out) const {
  encode_around_added(parts_->vocabulary, text, false, out,
                      [&](std::string_view part) { encode_ordinary(part, out); });
}

std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() / 3 + 1);
  encode_to(text, tokens);
  return tokens;
}

std::vector<TokenId> Tokenizer::encode_with_specials(std::string_view text) const {
  std::vector<TokenId> tokens;
  encode_around_added(parts_->vocabulary, text, true, tokens,
                      [&](std::string_view part) { encode_ordinary(part, tokens); });
  return tokens;
}

std::string Tokenizer::decode(std::span<const TokenId> tokens) const {
  std::string text;
  for (const TokenId token : tokens) text += bytes(token);
  return text;
}

std::string_view Tokenizer::bytes(TokenId token) const { return parts_->vocabulary.bytes(token); }
std::optional<TokenId> Tokenizer::special(std::string_view content) const {
  return parts_->vocabulary.find_added(content);
}
bool Tokenizer::is_special(TokenId token) const { return parts_->vocabulary.is_special(token); }
bool Tokenizer::is_used(TokenId token) const { return parts_->vocabulary.is_used(token); }
TokenId Tokenizer::vocabulary_size() const { return parts_->vocabulary.size(); }

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Could `bytes` (shorter than a character) become a valid UTF-8 character by appending? Table 3-7 of Unicode.
bool may_continue(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  const std::size_t length = first >= 0xF0 && first <= 0xF4   ? 4
                             : first >= 0xE0 && first <= 0xEF ? 3
                             : first >= 0xC2 && first <= 0xDF ? 2
                                                              : 0;
  if (bytes.size() >= length) return false;
  if (bytes.size() >= 2) {
    const unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at(1) < low || at(1) > high) return false;
  }
  return bytes.size() < 3 || (at(2) & 0xC0) == 0x80;
}

}  // namespace

std::string StreamDecoder::push(TokenId token) {
  pending_ += tokenizer_->bytes(token);
  std::string text;
  std::size_t at = 0;
  while (at < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(at);
    if (const std::size_t length = utf8_sequence_length(rest); length > 0) {
      text += rest.substr(0, length);
      at += length;
      continue;
    }
    if (may_continue(rest)) break;
    // One replacement for the longest start of a character that broke off here, as Unicode recommends.
    std::size_t broken = 1;
    while (broken < rest.size() && may_continue(rest.substr(0, broken + 1))) ++broken;
    text += kReplacement;
    at += broken;
  }
  pending_.erase(0, at);
  return text;
}

std::string StreamDecoder::finish() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return unfinished ? std::string(kReplacement) : std::string();
}

}  // namespace capstan::harmony

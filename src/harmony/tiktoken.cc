// o200k_base.tiktoken: lines of "base64(bytes) rank", where the rank is the token id; plus o200k_harmony's
// specials.
#include <array>
#include <string>

#include "base/sha256.h"
#include "base/text.h"
#include "harmony/tokenizer_parts.h"

namespace capstan::harmony {
namespace {

struct Special {
  TokenId id;
  std::string_view content;
};
constexpr std::array<Special, 9> kNamedSpecials = {{{199998, "<|startoftext|>"},
                                                    {199999, "<|endoftext|>"},
                                                    {200002, "<|return|>"},
                                                    {200003, "<|constrain|>"},
                                                    {200005, "<|channel|>"},
                                                    {200006, "<|start|>"},
                                                    {200007, "<|end|>"},
                                                    {200008, "<|message|>"},
                                                    {200012, "<|call|>"}}};
constexpr TokenId kReservedBegin = 200000;
constexpr TokenId kReservedEnd = 201088;

std::optional<std::string> decode_base64(std::string_view text) {
  const auto value = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int six = value(c);
    if (six < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(six);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<char>((bits >> count) & 0xFF));
    }
  }
  return bytes;
}

Result<void> add_specials(Vocabulary& vocabulary) {
  for (const Special& special : kNamedSpecials) {
    CAPSTAN_CHECK(vocabulary.add_added(special.id, std::string(special.content), true));
  }
  for (TokenId id = kReservedBegin; id < kReservedEnd; ++id) {
    if (!vocabulary.is_used(id))
      CAPSTAN_CHECK(vocabulary.add_added(id, fmt::format("<|reserved_{}|>", id), true));
  }
  return {};
}

}  // namespace

Result<Tokenizer> Tokenizer::o200k_harmony(std::string_view ranks) {
  if (const std::string hash = sha256_hex(ranks); hash != kO200kSha256) {
    return fail(Code::kCorrupt, "the rank file's sha256 is {}, not o200k_base's {}", hash, kO200kSha256);
  }
  Vocabulary vocabulary;
  int line_number = 0;
  for (const std::string_view line : split(ranks, '\n')) {
    ++line_number;
    if (line.empty()) continue;
    const std::size_t space = line.find(' ');
    auto bytes = decode_base64(line.substr(0, space));
    const auto id = space == std::string_view::npos ? std::nullopt : parse_int(line.substr(space + 1));
    if (!bytes || !id || *id < 0 || *id >= kTokenIdEnd) {
      return fail(Code::kCorrupt, "rank file, line {}: not \"base64 rank\"", line_number);
    }
    CAPSTAN_CHECK(vocabulary.add(static_cast<TokenId>(*id), *std::move(bytes)));
  }
  CAPSTAN_CHECK(add_specials(vocabulary));
  CAPSTAN_TRY(Pretokenizer cutter, Pretokenizer::from_pattern(kO200kPattern));
  return TokenizerLoader::make(std::move(vocabulary), Merges::by_token_id(), std::move(cutter), true);
}

}  // namespace capstan::harmony

// Vocabularies as GGUF lists them (tokenizer.ggml.tokens, token_type, merges, pre): the index is the id.
#include "harmony/byte_alphabet.h"
#include "harmony/tokenizer_parts.h"

namespace capstan::harmony {
namespace {

// ggml's token types.
enum Kind : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5 };

struct Pre {
  std::string_view name;
  const std::string_view* pattern;
  bool whole_first;  // a piece that is a token is taken before merging (tiktoken)
};
constexpr Pre kPres[] = {{"gpt-4o", &kO200kPattern, true}, {"gpt-2", &kGpt2Pattern, false}, {"default", &kGpt2Pattern, false}};

Result<void> add_token(Vocabulary& vocabulary, TokenId id, std::string_view text, std::int64_t kind) {
  switch (kind) {
    case kNormal: {
      auto bytes = bytes_from_alphabet(text);
      return vocabulary.add(id, bytes ? *std::move(bytes) : std::string(text));
    }
    case kUserDefined:
      return vocabulary.add_added(id, std::string(text), false);
    case kUnknown:
    case kControl:
    case kUnused:
      return vocabulary.add_added(id, std::string(text), true);
    default:
      return fail(Code::kCorrupt, "token {} has type {}; a byte-level vocabulary has types 1 to 5", id, kind);
  }
}

}  // namespace

Result<Tokenizer> Tokenizer::from_list(const TokenList& list) {
  if (list.tokens.empty() || list.tokens.size() > static_cast<std::size_t>(kTokenIdEnd))
    return fail(Code::kCorrupt, "{} tokens are listed; 1 to {} would be right", list.tokens.size(), kTokenIdEnd);
  if (!list.kinds.empty() && list.kinds.size() != list.tokens.size())
    return fail(Code::kCorrupt, "{} token types are listed for {} tokens", list.kinds.size(), list.tokens.size());
  const Pre* pre = nullptr;
  for (const Pre& known : kPres) {
    if (known.name == list.pre) pre = &known;
  }
  if (pre == nullptr)
    return fail(Code::kUnsupported, "pre-tokenizer '{}' is not known; gpt-oss has 'gpt-4o', and there are gpt-2, default",
                list.pre.substr(0, 40));
  Vocabulary vocabulary;
  for (std::size_t i = 0; i < list.tokens.size(); ++i)
    CAPSTAN_CHECK(add_token(vocabulary, static_cast<TokenId>(i), list.tokens[i], list.kinds.empty() ? kNormal : list.kinds[i]));
  Merges merges = Merges::by_list();
  for (const std::string_view merge : list.merges) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos) return fail(Code::kCorrupt, "merge \"{}\" has no space", merge.substr(0, 80));
    CAPSTAN_CHECK(add_merge(vocabulary, merge.substr(0, space), merge.substr(space + 1), merges));
  }
  merges.drop_specials(vocabulary);
  CAPSTAN_TRY(Pretokenizer cutter, Pretokenizer::from_pattern(*pre->pattern));
  return TokenizerLoader::make(std::move(vocabulary), std::move(merges), std::move(cutter), pre->whole_first);
}

}  // namespace capstan::harmony

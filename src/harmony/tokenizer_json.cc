// Hugging Face tokenizer.json: model BPE over the GPT-2 byte alphabet.
//
// Merges come as "left right" strings (before tokenizers 0.20) or ["left", "right"] pairs. A part, or what a
// merge makes, that is not in the vocabulary makes the file kCorrupt, as Hugging Face's loader does.
#include "base/json.h"
#include "harmony/byte_alphabet.h"
#include "harmony/tokenizer_parts.h"

namespace capstan::harmony {
namespace {

// A special that the vocabulary lists too ("<|endoftext|>") is kept as its content.
Result<void> add_vocabulary(const Json& model, Vocabulary& vocabulary) {
  const Json* tokens = model.find("vocab");
  if (tokens == nullptr || !tokens->is_object()) return fail(Code::kCorrupt, "model.vocab is not an object");
  for (const auto& [text, id] : tokens->members()) {
    if (!id.is_int()) return fail(Code::kCorrupt, "model.vocab: the id of \"{}\" is no integer", text);
    if (id.as_int() < 0 || id.as_int() >= kTokenIdEnd) {
      return fail(Code::kCorrupt, "model.vocab: id {} is outside 0..{}", id.as_int(), kTokenIdEnd - 1);
    }
    auto bytes = bytes_from_alphabet(text);
    CAPSTAN_CHECK(vocabulary.add(static_cast<TokenId>(id.as_int()), bytes ? *std::move(bytes) : text));
  }
  return {};
}

Result<void> add_added_tokens(const Json& root, Vocabulary& vocabulary) {
  const Json* added = root.find("added_tokens");
  if (added == nullptr || added->is_null()) return {};
  if (!added->is_array()) return fail(Code::kCorrupt, "added_tokens is not a list");
  for (const Json& token : added->items()) {
    const auto id = token.get_int("id");
    const auto content = token.get_string("content");
    if (!id || !content) return fail(Code::kCorrupt, "an entry of added_tokens lacks id or content");
    if (*id < 0 || *id >= kTokenIdEnd)
      return fail(Code::kCorrupt, "added_tokens: id {} is outside 0..{}", *id, kTokenIdEnd - 1);
    CAPSTAN_CHECK(
        vocabulary.add_added(static_cast<TokenId>(*id), *content, token.get_bool("special").value_or(false)));
  }
  return {};
}

Result<TokenId> token_of(const Vocabulary& vocabulary, std::string_view alphabet_text) {
  const auto bytes = bytes_from_alphabet(alphabet_text);
  const auto id = bytes ? vocabulary.find(*bytes) : std::nullopt;
  if (!id) return fail(Code::kCorrupt, "merges: \"{}\" is not in the vocabulary", alphabet_text);
  return *id;
}

}  // namespace

Result<void> add_merge(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
                       Merges& merges) {
  CAPSTAN_TRY(const TokenId left_id, token_of(vocabulary, left));
  CAPSTAN_TRY(const TokenId right_id, token_of(vocabulary, right));
  CAPSTAN_TRY(const TokenId joined, token_of(vocabulary, std::string(left) + std::string(right)));
  merges.add(left_id, right_id, joined);
  return {};
}

namespace {

Result<Merges> read_merges(const Json& model, const Vocabulary& vocabulary) {
  Merges merges = Merges::by_list();
  const Json* list = model.find("merges");
  if (list == nullptr || !list->is_array()) return fail(Code::kCorrupt, "model.merges is not a list");
  for (const Json& merge : list->items()) {
    if (merge.is_string()) {
      const std::string& text = merge.as_string();
      const std::size_t space = text.find(' ');
      if (space == std::string::npos) return fail(Code::kCorrupt, "model.merges: \"{}\" has no space", text);
      CAPSTAN_CHECK(add_merge(vocabulary, std::string_view(text).substr(0, space),
                              std::string_view(text).substr(space + 1), merges));
    } else if (merge.is_array() && merge.size() == 2 && merge.items()[0].is_string() &&
               merge.items()[1].is_string()) {
      CAPSTAN_CHECK(
          add_merge(vocabulary, merge.items()[0].as_string(), merge.items()[1].as_string(), merges));
    } else {
      return fail(Code::kCorrupt, "model.merges: an entry is neither \"a b\" nor [\"a\", \"b\"]");
    }
  }
  return merges;
}

// Model options that would change the result and that byte-level tokenizers do not use.
Result<void> refuse_other_kinds(const Json& root, const Json& model) {
  const std::string type = model.get_string("type").value_or("BPE");
  if (type != "BPE") return fail(Code::kUnsupported, "model type \"{}\" is not BPE", type);
  if (const Json* normalizer = root.find("normalizer"); normalizer != nullptr && !normalizer->is_null()) {
    return fail(Code::kUnsupported, "normalizer \"{}\" is not supported; byte-level tokenizers have none",
                normalizer->get_string("type").value_or("?"));
  }
  if (model.get_double("dropout").value_or(0) > 0)
    return fail(Code::kUnsupported, "BPE dropout is not supported");
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.get_string(key).value_or("").empty())
      return fail(Code::kUnsupported, "model.{} is not supported", key);
  }
  return {};
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json) {
  CAPSTAN_TRY(const Json root, Json::parse(tokenizer_json));
  const Json* model = root.find("model");
  if (model == nullptr || !model->is_object()) return fail(Code::kCorrupt, "tokenizer.json has no model");
  CAPSTAN_CHECK(refuse_other_kinds(root, *model));
  Vocabulary vocabulary;
  CAPSTAN_CHECK(add_vocabulary(*model, vocabulary));
  CAPSTAN_TRY(Merges merges, read_merges(*model, vocabulary));
  CAPSTAN_CHECK(add_added_tokens(root, vocabulary));
  merges.drop_specials(vocabulary);
  const Json* steps = root.find("pre_tokenizer");
  CAPSTAN_TRY(Pretokenizer cutter, Pretokenizer::from_json(steps == nullptr ? Json() : *steps));
  const bool whole_first = model->get_bool("ignore_merges").value_or(false);
  return TokenizerLoader::make(std::move(vocabulary), std::move(merges), std::move(cutter), whole_first);
}

}  // namespace capstan::harmony

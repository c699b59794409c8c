#include "engine/server/load_tokenizer.h"

namespace capstan::engine {

Result<harmony::Tokenizer> gguf_tokenizer(const GgufMetadata& metadata) {
  if (const auto json = metadata.string("tokenizer.huggingface.json")) return harmony::Tokenizer::from_json(*json);
  if (metadata.find("tokenizer.ggml.tokens") == nullptr)
    return fail(Code::kNotFound, "the file has no tokenizer: no key 'tokenizer.ggml.tokens'");
  const auto model = metadata.string("tokenizer.ggml.model").value_or("");
  if (model != "gpt2")
    return fail(Code::kUnsupported, "key 'tokenizer.ggml.model' is '{}'; this engine reads 'gpt2' (byte-level BPE)",
                model.substr(0, 40));
  const auto tokens = metadata.strings("tokenizer.ggml.tokens");
  if (!tokens) return fail(Code::kCorrupt, "key 'tokenizer.ggml.tokens' must be an array of strings");
  const auto merges = metadata.strings("tokenizer.ggml.merges");
  if (!merges) return fail(Code::kCorrupt, "key 'tokenizer.ggml.merges' must be an array of strings");
  const auto kinds = metadata.integers("tokenizer.ggml.token_type");
  if (!kinds) return fail(Code::kCorrupt, "key 'tokenizer.ggml.token_type' must be an array of whole numbers");
  return harmony::Tokenizer::from_list({.tokens = *tokens,
                                        .kinds = *kinds,
                                        .merges = *merges,
                                        .pre = metadata.string("tokenizer.ggml.pre").value_or("default")});
}

Result<harmony::Tokenizer> load_tokenizer(const ModelFiles& files) {
  if (files.is_gguf()) {
    CAPSTAN_TRY(const Gguf file, Gguf::open(files.gguf.front()));
    auto tokenizer = gguf_tokenizer(file.metadata());
    if (tokenizer) return tokenizer;
    std::error_code ignored;
    if (tokenizer.error().code != Code::kNotFound ||
        !std::filesystem::exists(files.directory / "tokenizer.json", ignored))
      return std::unexpected(std::move(tokenizer.error()).with_context(files.shown()));
  }
  return harmony::Tokenizer::load(files.directory / "tokenizer.json");
}

}  // namespace capstan::engine

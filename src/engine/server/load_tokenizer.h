// A model's tokenizer, wherever its files keep it.
//
// Safetensors: tokenizer.json beside the weights. GGUF: the file's own tokenizer.ggml.* (or the whole tokenizer.json
// under tokenizer.huggingface.json); where it has none, tokenizer.json beside it. Failure: that of Tokenizer's loaders,
// with the file; kUnsupported for a tokenizer.ggml.model other than "gpt2".
#pragma once

#include "engine/tensor/checkpoint.h"
#include "harmony/tokenizer.h"

namespace capstan::engine {

Result<harmony::Tokenizer> load_tokenizer(const ModelFiles& files);

// Of a GGUF file's metadata; kNotFound if it has none.
Result<harmony::Tokenizer> gguf_tokenizer(const GgufMetadata& metadata);

}  // namespace capstan::engine

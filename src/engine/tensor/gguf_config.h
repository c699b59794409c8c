// ModelConfig of a GGUF file's metadata (architecture "gpt-oss").
//
// What GGUF has no key for is what the architecture fixes and llama.cpp builds in: swiglu_limit 7, layers alternating
// with a sliding one first, biases. YaRN's `truncate` has no key either; gpt-oss was trained without (false). llama.cpp
// rounds all the same: ModelOptions::yarn_truncate makes logits comparable. Failure: kUnsupported for another
// architecture or kind of rope scaling, kCorrupt with the key and what would be right.
// Source: llama.cpp's gguf constants and src/models/openai-moe.cpp.
#pragma once

#include "engine/tensor/gguf.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

Result<ModelConfig> gguf_model_config(const Gguf& file);

}  // namespace capstan::engine

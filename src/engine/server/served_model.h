// A model that is ready to answer: how to speak to it, and what makes its tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/server/model_profile.h"
#include "engine/server/structured_answer.h"
#include "engine/server/token_source.h"
#include "harmony/format_tokens.h"
#include "harmony/tokenizer.h"

namespace capstan::engine {

struct ServedModel {
  std::string name;            // as clients ask for it
  std::int64_t created_s = 0;  // Unix time, for /v1/models
  ModelProfile profile;
  harmony::Tokenizer tokenizer;
  harmony::FormatTokens format;
  int context = 0;                   // prompt + answer, tokens
  int vocabulary = 0;                // ids that the model accepts
  std::vector<TokenId> stop_tokens;  // generation ends at these
  std::unique_ptr<TokenSource> source = {};
  std::unique_ptr<StructuredAnswers> structured = std::make_unique<StructuredAnswers>();
};

}  // namespace capstan::engine

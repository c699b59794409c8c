// Text to tokens and back, in vLLM's form: POST /tokenize ({"prompt"} or {"messages", "tools"}) and /detokenize ({"tokens"}).
//
// Bodies are checked like those of /v1: OpenAI's errors, 404 for another model's name (which may be left out). A prompt may
// hold the names of special tokens: they become those, as in vLLM.  Threads: pure.
#pragma once

#include <string_view>

#include "engine/server/served_model.h"
#include "http/message.h"

namespace capstan::engine {

http::Response tokenize(const ServedModel& model, std::string_view body);
http::Response detokenize(const ServedModel& model, std::string_view body);

}  // namespace capstan::engine

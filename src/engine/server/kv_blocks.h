// What a router asks an engine about its prefix cache: which blocks there are, and which ones a request would want.
//
//   GET  /v1/kv_blocks?epoch=E&since=N        changes after number N, or everything
//   POST /v1/chat/prompt_blocks               a chat request's tokens and block names, without generating
//
// Format: docs/formats/kv-report.md.  Threads: pure but for the report's own mutex.  Cost: linear in the answer.
#pragma once

#include <string_view>

#include "engine/server/served_model.h"
#include "http/message.h"

namespace capstan::engine {

http::Response kv_blocks(const ServedModel& model, const http::Request& request);
http::Response prompt_blocks(const ServedModel& model, std::string_view body);

}  // namespace capstan::engine

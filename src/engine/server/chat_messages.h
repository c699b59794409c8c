// The messages of a chat request. Private to openai_request.cc.
//
// Every call of a tool has its answer among the messages after it. Those of the older API are read, too: an assistant's
// `function_call`, and its result in the role `function`. Threads: pure.
#pragma once

#include "engine/server/field_reader.h"
#include "engine/server/openai_request.h"

namespace capstan::engine {

void read_messages(FieldReader& body, ChatRequest& request, std::optional<ApiError>& error);

std::string at(std::string_view list, std::size_t index);  // "messages", 3: "messages[3]"

}  // namespace capstan::engine

// What Converse asks of a conversation beyond its shape: turns that alternate and begin with the user's, no blank text,
// results for exactly the tools that were used, and their definitions.
//
// Takes a body that has kConverseShape. Threads: pure.  Failure: kInvalid, in Bedrock's words.
#pragma once

#include "base/json.h"

namespace capstan::gateway::bedrock {

Result<void> check_conversation(const Json& body);

}  // namespace capstan::gateway::bedrock

// /v1/conversations: made, read, changed and deleted by clients; responses that name one go on from its items and add
// theirs (responses_state.h). Threads: the routes run on the server's pool.
#pragma once

#include "gateway/gateway.h"
#include "gateway/openai/conversation_store.h"

namespace capstan::gateway::openai {

// `conversations` outlives the gateway's requests.
void add_conversations(Gateway& gateway, ConversationStore& conversations);

}  // namespace capstan::gateway::openai

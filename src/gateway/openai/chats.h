// /v1/chat/completions: made and, if they say `store`, kept; what is kept is listed, read, labelled and deleted.
//
// Threads: reading runs on the server's pool.
#pragma once

#include "gateway/gateway.h"
#include "gateway/openai/chat_store.h"

namespace capstan::gateway::openai {

// `chats` outlives the gateway's requests.
void add_chats(Gateway& gateway, ChatStore& chats);

}  // namespace capstan::gateway::openai

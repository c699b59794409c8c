// What requests of the Responses API share: stored responses and conversations, the key of sealed reasoning.
//
// Threads: safe from any.
#pragma once

#include <string>

#include "gateway/gateway.h"
#include "gateway/openai/conversation_store.h"
#include "gateway/openai/response_store.h"
#include "gateway/openai/responses_answer.h"

namespace capstan::gateway::openai {

std::string owner_of(const Caller& caller);  // "organisation/project"

class ResponsesState {
 public:
  // `seal_key`: of store::seal; all gateways of one installation share it. The database outlives this.
  ResponsesState(store::Database& database, std::string seal_key);

  ResponseStore& store() { return store_; }
  ConversationStore& conversations() { return conversations_; }
  // The request, checked, and its chat body; nothing in between.
  struct Prepared {
    ResponsesCall call;
    Json chat;
  };
  std::expected<Prepared, ApiError> prepare(std::string_view body, const std::string& owner) const;
  // What came before it, by previous_response_id or in its conversation.
  std::expected<Json::Array, ApiError> history(const ResponsesCall& call, const std::string& owner) const;
  // The chat body of a request, behind what came before it.
  std::expected<Json, ApiError> chat(const ResponsesCall& call, const std::string& owner,
                                     const Json::Array& previous) const;
  ResponsesAnswer answer(const ResponsesCall& call);
  // Stores the response if the request wants that; when it has ended, its items become its conversation's.
  void keep(const ResponsesCall& call, const std::string& owner, const Json& response);

 private:
  ResponseStore store_;
  ConversationStore conversations_;
  const std::string seal_key_;
};

}  // namespace capstan::gateway::openai

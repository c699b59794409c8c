// What requests of the Responses API share: stored responses, the key of sealed reasoning, and responses that
// are being made in the background.
//
// Threads: safe from any.  Bounds: kBackgroundMax responses at once; more are refused with 429.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "gateway/gateway.h"
#include "gateway/openai/local_call.h"
#include "gateway/openai/conversation_store.h"
#include "gateway/openai/response_store.h"
#include "gateway/openai/responses_answer.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kBackgroundMax = 32;

std::string owner_of(const Caller& caller);  // "organisation/project"

class ResponsesState {
 public:
  // `seal_key`: of store::seal; all gateways of one installation share it. Both references outlive this.
  ResponsesState(Gateway& gateway, store::Database& database, std::string seal_key);
  ~ResponsesState();  // cancels what is under way and waits

  ResponseStore& store() { return store_; }
  ConversationStore& conversations() { return conversations_; }
  // The request, checked.
  std::expected<ResponsesCall, ApiError> read(std::string_view body) const;
  // What came before it, by previous_response_id or in its conversation.
  std::expected<Json::Array, ApiError> history(const ResponsesCall& call, const std::string& owner) const;
  // The chat body of a request, behind what came before it.
  std::expected<Json, ApiError> chat(const ResponsesCall& call, const std::string& owner,
                                     const Json::Array& previous) const;
  ResponsesAnswer answer(const ResponsesCall& call);
  // Stores the response if the request wants that; when it has ended, its items become its conversation's.
  void keep(const ResponsesCall& call, const std::string& owner, const Json& response);

  // Makes a response on a thread of its own; what the client gets at once. `ask` waits for the chat completion, or for
  // the whole response object.
  using Ask = std::function<http::Response(LocalCall& call, const CallerPtr& caller, const ResponsesAnswer& answer)>;
  http::Response begin_background(const ResponsesCall& call, const Caller& caller, Ask ask);
  // Of a chat completion.
  Ask chat_completion(std::string body);
  // The cancelled response; 404, or 400 if it was not made in the background.
  http::Response cancel_background(const std::string& owner, const std::string& id);

 private:
  struct Background {
    LocalCall call;
    std::jthread thread;
    bool done = false;
  };
  void make(const std::string& id, const ResponsesCall& call, ResponsesAnswer answer, const Ask& ask,
            const CallerPtr& caller, LocalCall& local);

  Gateway& gateway_;
  ResponseStore store_;
  ConversationStore conversations_;
  const std::string seal_key_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Background>> background_;
};

}  // namespace capstan::gateway::openai

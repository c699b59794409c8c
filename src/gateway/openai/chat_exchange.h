// POST /v1/chat/completions: relayed as it is, and kept if the request says `store`. Private to openai/.
//
// Threads: an exchange's.  Cost: that of PassThrough, unless the answer is kept: then its body, or each event, is parsed.
#pragma once

#include "gateway/openai/chat_chunks.h"
#include "gateway/openai/chat_store.h"
#include "gateway/passthrough.h"

namespace capstan::gateway::openai {

class ChatExchange final : public Exchange {
 public:
  explicit ChatExchange(ChatStore& chats) : chats_(chats) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  http::Response error(const ApiError& error) const override { return relay_.error(error); }
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override { relay_.on_stream_begin(reply); }
  void on_event(const StreamEvent& event, Reply& reply) override;
  void on_stream_end(const Usage& usage, Reply& reply) override;
  void on_break(const ApiError& error, Reply& reply) override { relay_.on_break(error, reply); }

 private:
  void keep(Json completion, const std::string& request_id);

  ChatStore& chats_;
  PassThrough relay_{"/v1/chat/completions"};
  // Of a request whose answer is kept:
  std::string owner_, body_;
  ChatChunks chunks_;
};

}  // namespace capstan::gateway::openai

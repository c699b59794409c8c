// InvokeModel and InvokeModelWithResponseStream over a replica's chat/completions. Private to bedrock/;
// threads: as an exchange's.
#pragma once

#include "gateway/bedrock/invoke.h"
#include "gateway/bedrock/model_exchange.h"

namespace capstan::gateway::bedrock {

class InvokeExchange final : public ModelExchange {
 public:
  InvokeExchange(const Catalogue& catalogue, bool stream) : ModelExchange(catalogue), stream_(stream) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent& event, Reply& reply) override;
  void on_stream_end(const Usage& usage, Reply& reply) override;
  void on_break(const ApiError& error, Reply& reply) override;

 private:
  void send_kept(Reply& reply);
  // Headers that change the answer: the tier and latency, which it repeats, and guardrails, which there are none of.
  std::optional<BedrockError> read_headers(const http::Request& request, Json& chat);
  void repeat(http::Headers& headers) const;

  const bool stream_;
  bool failed_ = false;
  std::int64_t first_byte_ms_ = 0;
  Json kept_;  // the last chunk: the stream's end puts its numbers into it
  InvokeStream chunks_;
  std::string tier_, latency_;  // as asked for; "" if not
};

}  // namespace capstan::gateway::bedrock

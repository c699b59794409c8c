// An exchange whose answer is one JSON object: a replica that streams it is refused. Private to openai/.
#pragma once

#include <string>

#include "gateway/exchange.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

class WholeExchange : public Exchange {
 public:
  http::Response error(const ApiError& error) const override { return to_response(error); }
  void on_stream_begin(Reply& reply) override { reply.respond(to_response(no_answer(streamed_))); }
  void on_event(const StreamEvent&, Reply&) override {}
  void on_stream_end(const Usage&, Reply&) override {}
  void on_break(const ApiError&, Reply&) override {}

 protected:
  explicit WholeExchange(std::string streamed) : streamed_(std::move(streamed)) {}  // what the client of a stream is told
  // What the replica gave is none.
  static ApiError no_answer(std::string message) {
    return {.status = 502, .message = std::move(message), .type = "server_error", .code = "replica_lost"};
  }

 private:
  const std::string streamed_;
};

}  // namespace capstan::gateway::openai

// The exchange of OpenAI's own calls (chat/completions, completions): bytes go to the replica and come
// back unchanged, but for the usage that the gateway asks for on its own account and takes out again.
//
// Threads: of its event loop.  Cost: one pass over the request's body; per event a search for "usage".
#pragma once

#include <string>

#include "gateway/exchange.h"

namespace capstan::gateway {

class PassThrough final : public Exchange {
 public:
  explicit PassThrough(std::string target) : target_(std::move(target)) {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  http::Response error(const ApiError& error) const override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;
  void on_stream_begin(Reply& reply) override;
  void on_event(const StreamEvent& event, Reply& reply) override;
  void on_stream_end(const Usage& usage, Reply& reply) override;
  void on_break(const ApiError& error, Reply& reply) override;
  bool store_wanted() const { return store_wanted_; }

 private:
  std::string target_;
  bool store_wanted_ = false;
  bool usage_wanted_ = false;  // by the client
  std::string without_;        // an event without the member that nobody asked for
};

}  // namespace capstan::gateway

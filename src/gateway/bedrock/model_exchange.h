// What Bedrock's exchanges have in common: the model in the path, errors, time. Private to bedrock/.
//
// Threads: as an exchange's.
#pragma once

#include <chrono>

#include "gateway/bedrock/bedrock.h"
#include "gateway/bedrock/bedrock_error.h"
#include "gateway/exchange.h"

namespace capstan::gateway::bedrock {

class ModelExchange : public Exchange {
 public:
  explicit ModelExchange(const Catalogue& catalogue) : catalogue_(catalogue) {}
  http::Response error(const ApiError& error) const override { return refusal(from_openai(error)); }

 protected:
  // The served name of the path's model; 404 if nothing is served under any of its names.
  std::expected<std::string, http::Response> model_of(const http::Request& request) const;
  http::Response refusal(const BedrockError& error) const { return to_response(error, {}); }
  std::unexpected<http::Response> invalid(const Error& error) const {
    return std::unexpected(refusal({400, "ValidationException", error.message}));
  }
  // The body for a replica, with the tier that it asks for.
  static UpstreamCall upstream(std::string model, const Json& chat);
  std::int64_t latency_ms() const;
  // The head of a stream of events.
  static void start_events(Reply& reply);
  static http::Response json(const Json& body, const Reply& reply);

 private:
  const Catalogue& catalogue_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

}  // namespace capstan::gateway::bedrock

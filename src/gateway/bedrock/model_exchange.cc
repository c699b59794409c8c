#include "gateway/bedrock/model_exchange.h"

#include "gateway/bedrock/model_id.h"
#include "gateway/request_peek.h"

namespace capstan::gateway::bedrock {

std::expected<std::string, http::Response> ModelExchange::model_of(const http::Request& request) const {
  const std::string id = request.param("model");
  if (auto name = catalogue_.resolve(served_names(id))) return *std::move(name);
  if (!is_model_id(id))
    return std::unexpected(
        refusal({400, "ValidationException", "The provided model identifier is invalid."}));
  return std::unexpected(
      refusal({404, "ResourceNotFoundException",
               fmt::format("no model is served as '{}'; GET /foundation-models lists those that are", id)}));
}

UpstreamCall ModelExchange::upstream(std::string model, const Json& chat) {
  UpstreamCall call{.model = std::move(model), .body = chat.dump()};
  // The same reading of limits and tier as for a request that came as chat.
  if (const auto peek = peek_request(call.body)) {
    call.completion_tokens_max = peek->completion_tokens_max;
    call.tier = peek->tier;
  }
  return call;
}

std::int64_t ModelExchange::latency_ms() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begun_)
      .count();
}

void ModelExchange::start_events(Reply& reply) {
  reply.start(200, {{"content-type", "application/vnd.amazon.eventstream"},
                    {"x-amzn-requestid", reply.request_id()}});
}

http::Response ModelExchange::json(const Json& body, const Reply& reply) {
  http::Response response = http::Response::json(200, body);
  response.headers.set("x-amzn-requestid", reply.request_id());
  return response;
}

}  // namespace capstan::gateway::bedrock

#include "gateway/core.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"

namespace capstan::gateway {

Core::Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayLimits& l)
    : directory(d),
      registry(std::move(r)),
      requests(prometheus::BuildCounter()
                   .Name("capstan_gateway_requests_total")
                   .Help("Requests by model and status")
                   .Register(*registry)),
      first_byte_seconds(prometheus::BuildHistogram()
                             .Name("capstan_gateway_first_byte_seconds")
                             .Help("From a request's arrival to the first byte of its answer, by model")
                             .Register(*registry)),
      tokens(prometheus::BuildCounter()
                 .Name("capstan_gateway_tokens_total")
                 .Help("Tokens that replicas report, by model and kind (prompt, cached, completion, reasoning)")
                 .Register(*registry)),
      limits(l) {}

std::vector<std::string> model_names(const ReplicaDirectory& directory, const std::vector<Replica>& replicas) {
  std::vector<std::string> names;
  for (const Replica& replica : replicas) names.push_back(replica.model);
  for (const auto& [model, why] : directory.waiting()) names.push_back(model);
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

ApiError unknown_model(const ReplicaDirectory& directory, const std::string& model,
                       const std::vector<Replica>& all) {
  for (const auto& [name, why] : directory.waiting()) {
    if (name == model)
      return {.status = 503,
              .message = fmt::format("model '{}' is not ready: {}", model, why),
              .type = "server_error",
              .code = "model_not_ready"};
  }
  const auto names = model_names(directory, all);
  const std::vector<std::string_view> views(names.begin(), names.end());
  std::string message = fmt::format("the model '{}' does not exist; ", model);
  if (const auto close = nearest(model, views)) {
    message += fmt::format("did you mean '{}'?", *close);
  } else {
    message +=
        names.empty() ? std::string("none is served") : fmt::format("served are: {}", fmt::join(names, ", "));
  }
  return {.status = 404, .message = std::move(message), .param = "model", .code = "model_not_found"};
}

std::string request_id_of(const http::Request& request) {
  const std::string given = request.headers.get("x-request-id");
  const bool plain = !given.empty() && given.size() <= 128 &&
                     std::ranges::all_of(given, [](unsigned char c) { return c > ' ' && c < 127; });
  return plain ? given : "req_" + random_hex(12);
}

}  // namespace capstan::gateway

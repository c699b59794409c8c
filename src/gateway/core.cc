#include "gateway/core.h"

#include <algorithm>

#include "base/file.h"
#include "base/text.h"

namespace capstan::gateway {

namespace {

constexpr std::array<const char*, 4> kTokenKinds = {"prompt", "cached", "completion", "reasoning"};

}  // namespace

Core::Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayOptions& o)
    : directory(d),
      options(o),
      access_log(o.access_log),
      registry_(std::move(r)),
      requests_(prometheus::BuildCounter()
                    .Name("capstan_gateway_requests_total")
                    .Help("Requests by model and status")
                    .Register(*registry_)),
      first_byte_seconds_(prometheus::BuildHistogram()
                              .Name("capstan_gateway_first_byte_seconds")
                              .Help("From a request's arrival to the first byte of its answer, by model")
                              .Register(*registry_)),
      tokens_(prometheus::BuildCounter()
                  .Name("capstan_gateway_tokens_total")
                  .Help("Tokens that replicas report, by model and kind (prompt, cached, completion, reasoning)")
                  .Register(*registry_)) {}

std::shared_ptr<const ReplicaTable> Core::replicas() {
  const std::int64_t now_ms = loop.load()->now_ms();
  if (replicas_ && now_ms - replicas_ms_ < options.directory_ttl_ms) return replicas_;
  auto table = std::make_shared<ReplicaTable>();
  table->all = directory.replicas();
  for (const Replica& replica : table->all) table->by_model[replica.model].push_back(replica);
  replicas_ = std::move(table);
  replicas_ms_ = now_ms;
  return replicas_;
}

Core::Series& Core::series_of(std::string_view model) {
  if (const auto found = series_.find(model); found != series_.end()) return found->second;
  Series& series = series_[std::string(model)];
  const std::string label(model);
  series.first_byte = &first_byte_seconds_.Add(
      {{"model", label}},
      prometheus::Histogram::BucketBoundaries{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30});
  for (std::size_t i = 0; i < kTokenKinds.size(); ++i)
    series.tokens[i] = &tokens_.Add({{"model", label}, {"kind", kTokenKinds[i]}});
  return series;
}

// Only names that exist become a label, so that strangers cannot grow the metrics.
void Core::count(const Settlement& settlement) {
  const std::string_view model = settlement.model.empty() ? "unknown" : settlement.model;
  Series& series = series_of(model);
  prometheus::Counter*& requests = series.by_status[settlement.status];
  if (requests == nullptr)
    requests = &requests_.Add({{"model", std::string(model)}, {"status", std::to_string(settlement.status)}});
  requests->Increment();
  if (settlement.first_byte_ms > 0) series.first_byte->Observe(static_cast<double>(settlement.first_byte_ms) / 1000);
  const std::array<std::int64_t, 4> tokens = {settlement.usage.prompt_tokens, settlement.usage.cached_tokens,
                                              settlement.usage.completion_tokens, settlement.usage.reasoning_tokens};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] > 0) series.tokens[i]->Increment(static_cast<double>(tokens[i]));
  }
}

void Core::start_on(http::EventLoop& on) {
  client = std::make_unique<http::AsyncClient>(on);
  access_log.start_on(on);
  loop = &on;
}

void Core::stop() {
  while (!in_flight.empty()) in_flight.front().shut_down();
  loop = nullptr;
  client.reset();
  access_log.stop();
}

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

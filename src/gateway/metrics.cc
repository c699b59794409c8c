// How: series are made on first use and kept by model and operation. Buckets of the gen_ai metrics are those that
// OpenTelemetry's conventions advise.
#include "gateway/metrics.h"

namespace capstan::gateway {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using prometheus::Labels;

constexpr std::array<const char*, 4> kTokenKinds = {"prompt", "cached", "completion", "reasoning"};

const Buckets& first_byte_buckets() {
  static const Buckets all{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
  return all;
}
const Buckets& duration_buckets() {
  static const Buckets all{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
  return all;
}
const Buckets& first_token_buckets() {
  static const Buckets all{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};
  return all;
}
const Buckets& per_output_token_buckets() {
  static const Buckets all{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5};
  return all;
}
const Buckets& usage_buckets() {
  static const Buckets all{1,      4,       16,        64,        256,        1'024,     4'096,
                           16'384, 65'536,  262'144,   1'048'576, 4'194'304,  16'777'216, 67'108'864};
  return all;
}

prometheus::Family<prometheus::Histogram>& histogram(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

const char* operation_of(std::string_view path) {
  if (path.ends_with("/embeddings")) return "embeddings";
  return path.ends_with("/completions") && !path.ends_with("/chat/completions") ? "text_completion" : "chat";
}

Labels labels_of(std::string_view model, const char* operation) {
  return {{"gen_ai_operation_name", operation},
          {"gen_ai_provider_name", "capstan"},
          {"gen_ai_request_model", std::string(model)}};
}

Labels with(Labels labels, const char* name, std::string value) {
  labels.emplace(name, std::move(value));
  return labels;
}

double seconds(std::int64_t ms) { return static_cast<double>(ms) / 1000; }

}  // namespace

GatewayMetrics::GatewayMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      requests_(prometheus::BuildCounter()
                    .Name("capstan_gateway_requests_total")
                    .Help("Requests by model and status")
                    .Register(*registry_)),
      first_byte_seconds_(histogram(*registry_, "capstan_gateway_first_byte_seconds",
                                    "From a request's arrival to the first byte of its answer, by model")),
      tokens_(prometheus::BuildCounter()
                  .Name("capstan_gateway_tokens_total")
                  .Help("Tokens that replicas report, by model and kind (prompt, cached, completion, reasoning)")
                  .Register(*registry_)),
      duration_(histogram(*registry_, "gen_ai_server_request_duration_seconds",
                          "From a request's arrival to its end; error_type is the status of one that failed")),
      first_token_(histogram(*registry_, "gen_ai_server_time_to_first_token_seconds",
                             "From a request's arrival to its first token, of streams")),
      per_output_token_(histogram(*registry_, "gen_ai_server_time_per_output_token_seconds",
                                  "Between tokens after the first, of streams")),
      usage_(histogram(*registry_, "gen_ai_client_token_usage", "Tokens a request, input and output")) {}

GatewayMetrics::Series& GatewayMetrics::series_of(std::string_view model, Operation operation) {
  Series& series = series_[{std::string(model), operation}];
  if (series.first_byte != nullptr) return series;
  const std::string label(model);
  series.first_byte = &first_byte_seconds_.Add({{"model", label}}, first_byte_buckets());
  for (std::size_t i = 0; i < kTokenKinds.size(); ++i)
    series.tokens[i] = &tokens_.Add({{"model", label}, {"kind", kTokenKinds[i]}});
  const Labels labels = labels_of(model, operation);
  series.first_token = &first_token_.Add(labels, first_token_buckets());
  series.per_output_token = &per_output_token_.Add(labels, per_output_token_buckets());
  series.usage = {&usage_.Add(with(labels, "gen_ai_token_type", "input"), usage_buckets()),
                  &usage_.Add(with(labels, "gen_ai_token_type", "output"), usage_buckets())};
  return series;
}

prometheus::Histogram& GatewayMetrics::duration_of(Series& series, std::string_view model, Operation operation, int status) {
  const int failed = status >= 400 ? status : 0;
  prometheus::Histogram*& one = series.duration[failed];
  if (one == nullptr) {
    Labels labels = labels_of(model, operation);
    if (failed != 0) labels.emplace("error_type", std::to_string(failed));
    one = &duration_.Add(labels, duration_buckets());
  }
  return *one;
}

void GatewayMetrics::count(const Settlement& settlement, bool stream) {
  const std::string_view model = settlement.model.empty() ? "unknown" : settlement.model;
  const Operation operation = operation_of(settlement.path);
  Series& series = series_of(model, operation);
  prometheus::Counter*& requests = series.by_status[settlement.status];
  if (requests == nullptr)
    requests = &requests_.Add({{"model", std::string(model)}, {"status", std::to_string(settlement.status)}});
  requests->Increment();
  duration_of(series, model, operation, settlement.status).Observe(seconds(settlement.total_ms));
  if (settlement.first_byte_ms > 0) series.first_byte->Observe(seconds(settlement.first_byte_ms));
  const Usage& usage = settlement.usage;
  if (stream && settlement.first_byte_ms > 0) {
    series.first_token->Observe(seconds(settlement.first_byte_ms));
    if (usage.completion_tokens > 1)
      series.per_output_token->Observe(seconds(settlement.total_ms - settlement.first_byte_ms) /
                                       static_cast<double>(usage.completion_tokens - 1));
  }
  const std::array<std::int64_t, 4> tokens = {usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens,
                                              usage.reasoning_tokens};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] > 0) series.tokens[i]->Increment(static_cast<double>(tokens[i]));
  }
  if (usage.prompt_tokens > 0) series.usage[0]->Observe(static_cast<double>(usage.prompt_tokens));
  if (usage.completion_tokens > 0) series.usage[1]->Observe(static_cast<double>(usage.completion_tokens));
}

}  // namespace capstan::gateway

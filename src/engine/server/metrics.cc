// prometheus-cpp's registry; its exceptions (a wrong name) are our own bugs and cannot come from outside.
#include "engine/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace capstan::engine {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = prometheus::Labels;

const Buckets kSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640};
const Buckets kTokenSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                               0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5};
const Buckets kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

}  // namespace

struct Metrics::Series {
  explicit Series(const std::string& model) : labels{{"model_name", model}} {}

  prometheus::Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Histogram& histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }

  Labels labels;
  prometheus::Registry registry;
  prometheus::Gauge& running = gauge("vllm:num_requests_running", "Requests in the batch.");
  prometheus::Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests in the queue.");
  prometheus::Gauge& kv_bytes = gauge("capstan_engine_kv_cache_bytes", "Memory of key-value caches.");
  prometheus::Counter& prompt = counter("vllm:prompt_tokens_total", "Prompt tokens of accepted requests.");
  prometheus::Counter& generated = counter("vllm:generation_tokens_total", "Tokens generated.");
  prometheus::Histogram& ttft =
      histogram("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", kSeconds);
  prometheus::Histogram& per_token =
      histogram("vllm:time_per_output_token_seconds", "Between two tokens of a request.", kTokenSeconds);
  prometheus::Histogram& latency =
      histogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.", kSeconds);
  prometheus::Histogram& request_prompt =
      histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", kTokens);
  prometheus::Histogram& request_generated =
      histogram("vllm:request_generation_tokens", "Generated tokens per request.", kTokens);
  prometheus::Family<prometheus::Counter>& success = prometheus::BuildCounter()
                                                         .Name("vllm:request_success_total")
                                                         .Help("Requests finished, by reason.")
                                                         .Register(registry);
  prometheus::Family<prometheus::Counter>& http = prometheus::BuildCounter()
                                                      .Name("capstan_engine_http_responses_total")
                                                      .Help("HTTP answers, by path and status.")
                                                      .Register(registry);
};

Metrics::Metrics(const std::string& model_name) : series_(std::make_unique<Series>(model_name)) {}
Metrics::~Metrics() = default;

void Metrics::first_token(double seconds) { series_->ttft.Observe(seconds); }
void Metrics::next_token(double seconds) { series_->per_token.Observe(seconds); }
void Metrics::prompt_tokens(int count) { series_->prompt.Increment(count); }
void Metrics::generated_token() { series_->generated.Increment(); }

void Metrics::finished(std::string_view reason, double seconds, int prompt_tokens, int completion_tokens) {
  Labels labels = series_->labels;
  labels["finished_reason"] = std::string(reason);
  series_->success.Add(labels).Increment();
  series_->latency.Observe(seconds);
  series_->request_prompt.Observe(prompt_tokens);
  series_->request_generated.Observe(completion_tokens);
}

void Metrics::http_answer(std::string_view path, int status) {
  series_->http.Add({{"path", std::string(path)}, {"status", std::to_string(status)}}).Increment();
}

std::string Metrics::text(const BatchStats& stats) {
  series_->running.Set(stats.running);
  series_->waiting.Set(stats.waiting);
  series_->kv_bytes.Set(static_cast<double>(stats.kv_bytes));
  return prometheus::TextSerializer().Serialize(series_->registry.Collect());
}

}  // namespace capstan::engine

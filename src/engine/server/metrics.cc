// prometheus-cpp's registry; its exceptions (a wrong name) are our own bugs and cannot come from outside.
#include "engine/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>

namespace capstan::engine {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = prometheus::Labels;

const Buckets kSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                          1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640};
const Buckets kTokenSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                               0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,     2.5};
const Buckets kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

// To what the engine has counted itself.
void raise(prometheus::Counter& counter, std::uint64_t to) {
  if (static_cast<double>(to) > counter.Value()) counter.Increment(static_cast<double>(to) - counter.Value());
}

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

  std::mutex catching_up;  // of counters that are read from the engine
  Labels labels;
  prometheus::Registry registry;
  prometheus::Gauge& running = gauge("vllm:num_requests_running", "Requests in the batch.");
  prometheus::Gauge& waiting = gauge("vllm:num_requests_waiting", "Requests in the queue.");
  prometheus::Gauge& kv_bytes = gauge("capstan_engine_kv_cache_bytes", "Memory of key-value caches.");
  prometheus::Gauge& kv_usage =
      gauge("vllm:kv_cache_usage_perc", "Share of the KV cache's memory that running requests hold, 0 to 1.");
  // The name that older dashboards ask for.
  prometheus::Gauge& gpu_usage =
      gauge("vllm:gpu_cache_usage_perc", "The same as vllm:kv_cache_usage_perc, under its older name.");
  prometheus::Counter& prefix_queries =
      counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  prometheus::Counter& prefix_hits = counter("vllm:prefix_cache_hits_total", "Prompt tokens found there.");
  prometheus::Counter& preemptions = counter("vllm:num_preemptions_total", "Requests that gave their memory back.");
  prometheus::Counter& drafted = counter("vllm:spec_decode_num_draft_tokens_total", "Tokens guessed ahead.");
  prometheus::Counter& accepted =
      counter("vllm:spec_decode_num_accepted_tokens_total", "Tokens guessed ahead that were right.");
  prometheus::Counter& prompt = counter("vllm:prompt_tokens_total", "Prompt tokens of accepted requests.");
  prometheus::Counter& generated = counter("vllm:generation_tokens_total", "Tokens generated.");
  prometheus::Histogram& ttft =
      histogram("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", kSeconds);
  prometheus::Histogram& per_token =
      histogram("vllm:time_per_output_token_seconds", "Between two tokens of a request.", kTokenSeconds);
  // The name that vLLM gave it later; both are there, as in vLLM.
  prometheus::Histogram& between_tokens =
      histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.", kTokenSeconds);
  prometheus::Histogram& mean_per_token = histogram("vllm:request_time_per_output_token_seconds",
                                                    "Mean time between the tokens of a request.", kTokenSeconds);
  prometheus::Histogram& decode =
      histogram("vllm:request_decode_time_seconds", "From a request's first token to its last.", kSeconds);
  prometheus::Histogram& queue_time =
      histogram("vllm:request_queue_time_seconds", "From a request's arrival to the batch.", kSeconds);
  prometheus::Histogram& prefill_time =
      histogram("vllm:request_prefill_time_seconds", "From the batch to a request's first token.", kSeconds);
  prometheus::Histogram& inference_time =
      histogram("vllm:request_inference_time_seconds", "From the batch to a request's last token.", kSeconds);
  prometheus::Histogram& computed =
      histogram("vllm:request_prefill_kv_computed_tokens",
                "Prompt tokens computed per request, those of the cache left out.", kTokens);
  prometheus::Histogram& longest = histogram("vllm:request_max_num_generation_tokens",
                                             "Generated tokens of the longest choice per request.", kTokens);
  prometheus::Histogram& params_n = histogram("vllm:request_params_n", "The n of requests.", {1, 2, 5, 10, 20});
  prometheus::Histogram& params_tokens =
      histogram("vllm:request_params_max_tokens", "The max_tokens of requests that give one.", kTokens);
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
void Metrics::next_token(double seconds) {
  series_->per_token.Observe(seconds);
  series_->between_tokens.Observe(seconds);
}
void Metrics::prefilled(double queue_seconds, double prefill_seconds, int computed_tokens) {
  series_->queue_time.Observe(queue_seconds);
  series_->prefill_time.Observe(prefill_seconds);
  series_->computed.Observe(computed_tokens);
}
void Metrics::longest_choice(int tokens) { series_->longest.Observe(tokens); }
void Metrics::prompt_tokens(int count) { series_->prompt.Increment(count); }
void Metrics::generated_token() { series_->generated.Increment(); }

void Metrics::finished(const Finished& choice) {
  Labels labels = series_->labels;
  labels["finished_reason"] = std::string(choice.reason);
  series_->success.Add(labels).Increment();
  series_->latency.Observe(choice.seconds);
  series_->request_prompt.Observe(choice.prompt_tokens);
  series_->request_generated.Observe(choice.completion_tokens);
  if (choice.completion_tokens > 0) {
    series_->decode.Observe(choice.decode_seconds);
    series_->inference_time.Observe(choice.inference_seconds);
  }
  if (choice.completion_tokens > 1)
    series_->mean_per_token.Observe(choice.decode_seconds / (choice.completion_tokens - 1));
}

void Metrics::accepted(int choices, int tokens_max) {
  series_->params_n.Observe(choices);
  if (tokens_max > 0) series_->params_tokens.Observe(tokens_max);
}

void Metrics::http_answer(std::string_view path, int status) {
  series_->http.Add({{"path", std::string(path)}, {"status", std::to_string(status)}}).Increment();
}

std::string Metrics::text(const BatchStats& stats) {
  series_->running.Set(stats.running);
  series_->waiting.Set(stats.waiting);
  series_->kv_bytes.Set(static_cast<double>(stats.kv_bytes));
  if (stats.kv_bytes_max > 0) {
    const double usage = static_cast<double>(stats.kv_bytes_pinned) / static_cast<double>(stats.kv_bytes_max);
    series_->kv_usage.Set(usage);
    series_->gpu_usage.Set(usage);
  }
  const std::lock_guard lock(series_->catching_up);
  raise(series_->prefix_queries, stats.prefix.query_tokens);
  raise(series_->prefix_hits, stats.prefix.hit_tokens);
  raise(series_->preemptions, stats.preemptions);
  raise(series_->drafted, stats.drafted_tokens);
  raise(series_->accepted, stats.accepted_tokens);
  return prometheus::TextSerializer().Serialize(series_->registry.Collect());
}

}  // namespace capstan::engine

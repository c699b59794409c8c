#include "sim/serving/serving_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace capstan::sim {
namespace {

constexpr double kAllReduceS = 12e-6;  // the least that one takes

// gpt-oss: MXFP4 experts, the rest bf16; half of its layers see 128 tokens only, whose keys and values do not
// grow.
constexpr ServedModel kModels[] = {{.name = "gpt-oss-120b",
                                    .active_parameters = 5.1e9,
                                    .dense_bytes = 4.3e9,
                                    .expert_bytes = 61.0e9,
                                    .experts = 128,
                                    .experts_per_token = 4,
                                    .layers = 36,
                                    .hidden = 2'880,
                                    .attention_width = 4'096,
                                    .kv_bytes = 36'864},
                                   {.name = "gpt-oss-20b",
                                    .active_parameters = 3.6e9,
                                    .dense_bytes = 3.6e9,
                                    .expert_bytes = 10.2e9,
                                    .experts = 32,
                                    .experts_per_token = 4,
                                    .layers = 24,
                                    .hidden = 2'880,
                                    .attention_width = 4'096,
                                    .kv_bytes = 24'576},
                                   {.name = "llama3-8b",
                                    .active_parameters = 8.0e9,
                                    .dense_bytes = 16.1e9,
                                    .layers = 32,
                                    .hidden = 4'096,
                                    .attention_width = 4'096,
                                    .kv_bytes = 131'072},
                                   {.name = "llama3-70b",
                                    .active_parameters = 70.6e9,
                                    .dense_bytes = 141e9,
                                    .layers = 80,
                                    .hidden = 8'192,
                                    .attention_width = 8'192,
                                    .kv_bytes = 327'680}};

}  // namespace

const ServedModel* served_model(std::string_view name) {
  const auto at = std::find_if(std::begin(kModels), std::end(kModels),
                               [&](const ServedModel& one) { return one.name == name; });
  return at == std::end(kModels) ? nullptr : at;
}

std::string served_model_names() {
  std::string out;
  for (const ServedModel& one : kModels) out += fmt::format("{}{}", out.empty() ? "" : ", ", one.name);
  return out;
}

double step_s(const ServedModel& model, const Engine& engine, const StepLoad& load) {
  const auto tokens = static_cast<double>(load.decode_tokens + load.prefill_tokens);
  if (tokens == 0) return 0;
  const auto gpus = static_cast<double>(engine.gpus);
  const double pairs = static_cast<double>(load.context_tokens) + load.prefill_pairs;
  const double flops =
      2 * model.active_parameters * tokens + 4 * model.layers * model.attention_width * pairs;
  const double met = 1 - std::pow(1 - model.experts_per_token / model.experts, tokens);
  // A prefilled chunk reads its context once, not once a token.
  const double read =
      static_cast<double>(load.context_tokens) +
      (load.prefill_tokens > 0 ? load.prefill_pairs / static_cast<double>(load.prefill_tokens) : 0);
  const double bytes = model.dense_bytes + model.expert_bytes * met + model.kv_bytes * read;
  double out = std::max(flops / (gpus * engine.gpu.flops * engine.compute_share),
                        bytes / (gpus * engine.gpu.memory_rate * engine.memory_share));
  if (engine.gpus > 1) {
    const double each = tokens * model.hidden * 2 * 2 * (gpus - 1) / gpus / engine.gpu.nvlink_rate;
    out += 2 * model.layers * std::max(kAllReduceS, each);
  }
  return out + engine.overhead_s;
}

std::int64_t kv_tokens(const ServedModel& model, const Engine& engine) {
  const double memory = static_cast<double>(engine.gpus) * engine.gpu.memory_bytes * engine.memory_for_use;
  return static_cast<std::int64_t>((memory - model.dense_bytes - model.expert_bytes) / model.kv_bytes);
}

}  // namespace capstan::sim

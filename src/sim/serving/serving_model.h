// Serving model: how long one step of an engine with continuous batching takes, and how much context it can
// hold.
//
//   const ServedModel* model = served_model("gpt-oss-120b");
//   const Engine engine{.gpu = gpu_model("h100")};
//   double s = step_s(*model, engine, {.decode_tokens = 32, .context_tokens = 32 * 4'000});
//   std::int64_t tokens = kv_tokens(*model, engine);
//
// A step's time is the larger of its arithmetic and its memory traffic, plus what it costs at any size
// (roofline, Williams 2009; for transformers Pope et al. 2022):
//   arithmetic  2 N per token, attention 4 L d per token and token of context, over peak x compute_share
//   memory      the weights that the batch's tokens meet, and the keys and values that they read, over rate x
//   memory_share links       two all-reduces a layer where a replica has several GPUs
// Of E experts, k a token, t tokens meet 1 - (1 - k/E)^t (routing as if even). Prefill comes in chunks beside
// decoding (Sarathi-Serve, 2024). Limits: no speculative decoding, no offload of keys and values, even
// routing. Pure; 0.1 us.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sim/gpu_models.h"

namespace capstan::sim {

struct ServedModel {
  std::string_view name;
  double active_parameters = 0;
  double dense_bytes = 0;   // of weights that every token meets
  double expert_bytes = 0;  // of all experts
  double experts = 1, experts_per_token = 1;
  double layers = 0, hidden = 0;
  double attention_width = 0;  // heads x their dimension
  double kv_bytes = 0;         // a token of context
};
const ServedModel* served_model(std::string_view name);  // nullptr: unknown
std::string served_model_names();

struct Engine {
  GpuModel gpu = gpu_model("h100");
  std::int64_t gpus = 1;
  double compute_share = 0.5;         // of the peak
  double memory_share = 0.8;          // of the rate
  double overhead_s = 0.003;          // of a step: launches, sampling, scheduling
  double memory_for_use = 0.9;        // of a GPU's memory, for weights, keys and values
  std::int64_t chunk_tokens = 8'192;  // of prefill in a step, at most
  std::int64_t sequences_max = 256;
};

struct StepLoad {
  std::int64_t decode_tokens = 0;
  std::int64_t context_tokens = 0;  // that decoding reads
  std::int64_t prefill_tokens = 0;
  double prefill_pairs = 0;  // sum over prefilled tokens of the context that each sees
};
double step_s(const ServedModel& model, const Engine& engine, const StepLoad& load);
// Tokens of context that fit beside the weights; below 0: the weights alone do not fit.
std::int64_t kv_tokens(const ServedModel& model, const Engine& engine);

}  // namespace capstan::sim

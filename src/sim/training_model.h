// Training model: how long a step takes on a placement, from the model's size, its parallelism and the links
// between its GPUs.
//
//   const TrainingModel* model = training_model("llama3-405b");
//   const StepTime step = step_time(*model, gpu_model("h100"), {.gpus = 16'384, .gpus_per_domain = 8,
//   .domains = 2'048}); pace_milli(*model, gpu, spread, best)       // 1,000: as fast as on the best
//   placement
//
// Formulas (seconds), their sources and limits:
//   compute   (6 N + 6 L h s) x tokens / (GPUs x peak x efficiency)   Kaplan 2020; attention as PaLM (2022),
//   causal tensor    4 all-reduces a layer of the activations, ring          Megatron-LM (2019) pipeline  (pp
//   - 1) / microbatches of the two                      PipeDream-Flush / 1F1B (Narayanan 2021) data
//   hierarchical all-reduce of bf16 gradients, what the backward pass (two thirds) does not hide
// Links run at 80 % of their rate; across spine blocks at half of that (oversubscription assumed).
// `efficiency` of the matrix products is the parameter to calibrate by the MFU that one has seen. Not
// modelled: stragglers, input, expert parallelism's all-to-all.  Pure; a microsecond.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sim/gpu_models.h"

namespace capstan::sim {

struct TrainingModel {
  std::string_view name;
  double parameters = 0;         // all of them: gradients
  double active_parameters = 0;  // that a token meets
  double layers = 0, hidden = 0;
  double sequence = 0;  // tokens of a sample
  double batch = 0;     // samples a step; 0: `batch_each` on every GPU, as data-parallel models scale
  double batch_each = 0;
  double sample_flops = 0;                // of models without tokens: forward and backward
  std::int64_t tensor = 1, pipeline = 1;  // GPUs that share a layer; stages
  double pieces = 1;                      // of a stage, interleaved
  double efficiency = 0.5;                // of matrix products, of the peak
};
const TrainingModel* training_model(std::string_view name);  // nullptr: unknown
std::string training_model_names();                          // "gpt-oss-120b, gpt-oss-20b, …"

struct Spread {
  std::int64_t gpus = 0;
  std::int64_t gpus_per_domain = 0;  // of the gang, in the NVLink domain where it has fewest
  std::int64_t domains = 1;
  std::int64_t blocks = 1;
};

struct StepTime {
  double compute_s = 0, tensor_s = 0, pipeline_s = 0, data_s = 0;
  double total_s() const { return compute_s + tensor_s + pipeline_s + data_s; }
  double mfu = 0;  // of the peak, over the whole step
};
StepTime step_time(const TrainingModel& model, const GpuModel& gpu, const Spread& spread);

// Step time here over step time there, in thousandths, at least 1,000.
std::int64_t pace_milli(const TrainingModel& model, const GpuModel& gpu, const Spread& here,
                        const Spread& best);

}  // namespace capstan::sim

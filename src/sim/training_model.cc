#include "sim/training_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace capstan::sim {
namespace {

constexpr double kLinkShare = 0.8;   // of a link's rate that collectives reach
constexpr double kSpineShare = 0.5;  // of that across blocks
constexpr double kBytes = 2;         // bf16
constexpr double kBackwardShare = 2.0 / 3;

// Published shapes. Parallelism and batch: as published for Llama 3, plausible for the others.
constexpr TrainingModel kModels[] = {
    {.name = "llama3-405b",
     .parameters = 405e9,
     .active_parameters = 405e9,
     .layers = 126,
     .hidden = 16'384,
     .sequence = 8'192,
     .batch = 2'048,
     .tensor = 8,
     .pipeline = 16,
     .pieces = 8,
     .efficiency = 0.52},
    {.name = "llama3-70b",
     .parameters = 70e9,
     .active_parameters = 70e9,
     .layers = 80,
     .hidden = 8'192,
     .sequence = 8'192,
     .batch = 1'024,
     .tensor = 8,
     .pipeline = 4,
     .pieces = 4,
     .efficiency = 0.55},
    {.name = "llama3-8b",
     .parameters = 8e9,
     .active_parameters = 8e9,
     .layers = 32,
     .hidden = 4'096,
     .sequence = 8'192,
     .batch = 512,
     .efficiency = 0.58},
    {.name = "gpt-oss-120b",
     .parameters = 117e9,
     .active_parameters = 5.1e9,
     .layers = 36,
     .hidden = 2'880,
     .sequence = 8'192,
     .batch = 2'048,
     .tensor = 4,
     .pipeline = 2,
     .efficiency = 0.4},
    {.name = "gpt-oss-20b",
     .parameters = 21e9,
     .active_parameters = 3.6e9,
     .layers = 24,
     .hidden = 2'880,
     .sequence = 8'192,
     .batch = 1'024,
     .tensor = 2,
     .efficiency = 0.4},
    {.name = "moe-1t",
     .parameters = 1.0e12,
     .active_parameters = 32e9,
     .layers = 61,
     .hidden = 7'168,
     .sequence = 8'192,
     .batch = 4'096,
     .tensor = 8,
     .pipeline = 8,
     .pieces = 4,
     .efficiency = 0.4},
    // Data-parallel classics, as the Muri trace names them: forward FLOPs of the papers times three.
    {.name = "vgg16", .parameters = 138e6, .batch_each = 32, .sample_flops = 93e9, .efficiency = 0.3},
    {.name = "vgg19", .parameters = 144e6, .batch_each = 32, .sample_flops = 118e9, .efficiency = 0.3},
    {.name = "resnet18", .parameters = 11.7e6, .batch_each = 64, .sample_flops = 11e9, .efficiency = 0.2},
    {.name = "shufflenet_v2_x1_0",
     .parameters = 2.3e6,
     .batch_each = 64,
     .sample_flops = 0.9e9,
     .efficiency = 0.05},
    {.name = "bert",
     .parameters = 110e6,
     .active_parameters = 110e6,
     .layers = 12,
     .hidden = 768,
     .sequence = 512,
     .batch_each = 8,
     .efficiency = 0.35},
    {.name = "gpt2",
     .parameters = 124e6,
     .active_parameters = 124e6,
     .layers = 12,
     .hidden = 768,
     .sequence = 1'024,
     .batch_each = 4,
     .efficiency = 0.35},
    {.name = "a2c", .parameters = 1.7e6, .batch_each = 64, .sample_flops = 0.06e9, .efficiency = 0.02},
    {.name = "dqn", .parameters = 1.7e6, .batch_each = 64, .sample_flops = 0.06e9, .efficiency = 0.02}};

double ring(double count) { return count <= 1 ? 0 : 2 * (count - 1) / count; }

}  // namespace

const TrainingModel* training_model(std::string_view name) {
  const auto at = std::find_if(std::begin(kModels), std::end(kModels),
                               [&](const TrainingModel& one) { return one.name == name; });
  return at == std::end(kModels) ? nullptr : at;
}

std::string training_model_names() {
  std::string out;
  for (const TrainingModel& one : kModels) out += fmt::format("{}{}", out.empty() ? "" : ", ", one.name);
  return out;
}

StepTime step_time(const TrainingModel& model, const GpuModel& gpu, const Spread& spread) {
  const double gpus = static_cast<double>(std::max<std::int64_t>(1, spread.gpus));
  // A gang that is smaller than the model's parallelism runs with less of it.
  const double tensor = std::min(static_cast<double>(model.tensor), gpus);
  const double pipeline = std::clamp(std::floor(gpus / tensor), 1.0, static_cast<double>(model.pipeline));
  const double replicas = std::max(1.0, std::floor(gpus / (tensor * pipeline)));
  const double samples = model.batch > 0 ? model.batch : model.batch_each * gpus;
  const double tokens = samples * model.sequence;
  const double domain = static_cast<double>(std::max<std::int64_t>(1, spread.gpus_per_domain));
  const double nvlink = gpu.nvlink_rate * kLinkShare;
  const double network = gpu.network_rate * kLinkShare * (spread.blocks > 1 ? kSpineShare : 1);

  const double flops =
      model.sample_flops > 0
          ? model.sample_flops * samples
          : (6 * model.active_parameters + 6 * model.layers * model.hidden * model.sequence) * tokens;
  StepTime out;
  out.compute_s = flops / (gpus * gpu.flops * model.efficiency);
  const double activations = 4 * (model.layers / pipeline) * (tokens / replicas) * model.hidden * kBytes;
  out.tensor_s = activations * ring(tensor) / (tensor <= domain ? nvlink : network);
  const double microbatches = std::max(1.0, samples / replicas);
  out.pipeline_s = (out.compute_s + out.tensor_s) * (pipeline - 1) / (microbatches * model.pieces);
  // Inside each domain over NVLink; then every GPU carries its share to the other domains.
  const double gradient = model.parameters * kBytes / (tensor * pipeline);
  const double inside =
      spread.domains > 1 ? std::max(1.0, std::floor(domain / (tensor * pipeline))) : replicas;
  const double across = std::max(1.0, replicas / inside);
  const double data = gradient * ring(inside) / nvlink + gradient / inside * ring(across) / network;
  out.data_s = std::max(data - kBackwardShare * out.compute_s, data * 0.05);
  out.mfu = flops / (gpus * gpu.flops) / out.total_s();
  return out;
}

std::int64_t pace_milli(const TrainingModel& model, const GpuModel& gpu, const Spread& here,
                        const Spread& best) {
  const double ratio = step_time(model, gpu, here).total_s() / step_time(model, gpu, best).total_s();
  return std::max<std::int64_t>(1'000, std::llround(ratio * 1'000));
}

}  // namespace capstan::sim

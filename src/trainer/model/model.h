// The forward and backward passes of the gpt-oss architecture, for training on CPU.
//
//   ModelConfig config{.layers = 4, .hidden = 256, …};
//   ParameterLayout layout(config);
//   std::vector<float> params(layout.size()), grads(layout.size());
//   initialise(layout, seed, params);
//   Model model(config, Precision::kBf16);
//   StepResult step = model.forward_backward(params, batch, targets_of_the_gang, grads);
//
// Parameters and gradients are flat f32 vectors; ParameterLayout says which tensor stands where, under the
// names of the Hugging Face checkpoint. Architecture (source: openai/gpt-oss, gpt_oss/torch/model.py):
// RMSNorm; q, k, v, o with biases; half-split RoPE with YaRN; grouped-query attention with a learned sink per
// head, sliding window in even layers; router, top-k, softmax over the k; experts with interleaved gate_up
// rows and clamped SwiGLU (alpha 1.702); final norm; untied lm_head; cross-entropy at the positions that have
// a target.
//
// Auxiliary load-balance loss, per batch of T tokens and E experts with k chosen each:
//   aux = mean over layers of E * sum_e f_e P_e,   f_e = (times that e was chosen) / (T k),
//   P_e = mean over tokens of the softmax over all E router logits.
// Perfect balance gives 1 (Hugging Face's load_balancing_loss_func, per layer, divided by k). f_e is held
// constant.
//
// Threads: one owner per Model, which computes on the calling thread only (it holds OpenMP to one thread
// there). Determinism: equal bits for equal input, on the same binary and kind of CPU. Memory: kept between
// steps; a token takes about layers * (6 H + 2 C + k (H + 2 I)) elements of 2 or 4 bytes, H hidden, C width
// of q, k, v together. Failure: none that data can cause; a violated precondition aborts.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::trainer {

struct ModelConfig {
  int layers = 4;
  int hidden = 256;
  int intermediate = 128;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 64;  // even
  int experts = 8;
  int experts_per_token = 2;
  int vocab = 272;
  int sliding_window = 128;  // keys that an even layer sees, the query's own included
  double rope_theta = 150000.0;
  double yarn_factor = 0.0;  // 0 = plain RoPE; the next four are then unused
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  int original_context = 4096;
  bool yarn_truncate = false;  // true rounds YaRN's two bounds outwards
  double swiglu_limit = 7.0;
  double rms_eps = 1e-5;
  double aux_loss_coefficient = 0.01;
  int context_max = 4096;  // no document is longer
};

struct ParameterInfo {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  // Row-major. Experts: gate_up_proj [E, 2I, H] (even rows gate, odd rows up), down_proj [E, H, I].
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;  // first float in the flat vector
  std::size_t count = 0;
  bool decay = false;  // weight decay applies: matrices, not norms, biases or sinks
};

// All tensors, back to back without gaps, in the order embed, layers, norm, lm_head.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);
  std::span<const ParameterInfo> all() const { return infos_; }
  std::size_t size() const { return size_; }
  // The tensor of that name; asserts that there is one.
  const ParameterInfo& find(std::string_view name) const;

 private:
  std::vector<ParameterInfo> infos_;
  std::size_t size_ = 0;
};

// Norms 1, biases and sinks 0, matrices near-normal with deviation 0.02 (o_proj, down_proj: 0.02 / sqrt(2
// layers)). A pure function of (layout, seed), the same bits on every machine.
void initialise(const ParameterLayout& layout, std::uint64_t seed, std::span<float> params);

// kF32: all in f32. kBf16: weights (f32 masters) and activations are rounded to bf16 where they enter a
// matrix product, sums are f32. A CPU without AVX-512 computes kBf16 as kF32.
enum class Precision { kF32, kBf16 };

// Documents packed back to back: attention never crosses a document and positions restart at 0. May be empty.
struct Batch {
  std::span<const std::int32_t> tokens;           // [T], in [0, vocab)
  std::span<const std::int32_t> targets;          // [T], -1 = no loss at this position
  std::span<const std::int32_t> document_starts;  // rising, the first is 0; the last document ends at T
  // Scales the auxiliary loss: this rank's tokens / the gang's tokens, so that gradients of ranks add up.
  double aux_weight = 1.0;
};

struct StepResult {
  double loss_sum = 0.0;  // sum of cross-entropies in nats
  std::int64_t target_count = 0;
  double aux_loss = 0.0;                  // as above, without coefficient and weight; 0 for an empty batch
  std::int64_t correct = 0;               // positions whose most likely token is the target
  std::vector<std::int64_t> expert_load;  // [layers * E], times chosen
};

class Model {
 public:
  Model(const ModelConfig& config, Precision precision);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // What is computed in: kF32 if the CPU cannot do what was asked for.
  Precision precision() const;

  // Adds d(loss_sum / normaliser + aux_weight * aux_loss_coefficient * aux_loss) / d(param) to `grads`.
  StepResult forward_backward(std::span<const float> params, const Batch& batch, double normaliser,
                              std::span<float> grads);
  // The losses alone, for evaluation.
  StepResult forward(std::span<const float> params, const Batch& batch);
  // One document; logits are [tokens, vocab].
  void forward_logits(std::span<const float> params, std::span<const std::int32_t> tokens,
                      std::span<float> logits);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace capstan::trainer

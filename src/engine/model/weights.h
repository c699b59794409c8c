// Weights: the tensors of a gpt-oss checkpoint under their roles, shapes checked against config.json.
//
// Matrices stay in the file's mapping (a tensor that is not aligned to its numbers is copied). Vectors
// (norms, biases, sinks) become f32. Experts are MXFP4 (…_proj_blocks, …_scales, output-major) or BF16, F16
// or F32 in Hugging Face's input-major orientation (gate_up_proj [E, hidden, 2 intermediate], down_proj [E,
// intermediate, hidden]). gate_up's outputs are interleaved: even = gate, odd = linear. Failure: kCorrupt
// with the tensor's name, its shape or dtype, and what config.json asks for.
//
// GGUF: the same roles under llama.cpp's names; matrices may be Q8_0, experts MXFP4 or any of the others, output-major,
// with gate and up apart (their rows are met as if interleaved).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/kernels/packed.h"
#include "engine/kernels/weight.h"
#include "engine/tensor/checkpoint.h"

namespace capstan::engine {

struct Linear {
  WeightView weight;
  PackedMatrix packed;      // the same for integer products; data is null without a PackedStore
  std::vector<float> bias;  // [rows] or empty
  const float* bias_data() const { return bias.empty() ? nullptr : bias.data(); }
};

struct LayerWeights {
  LayerType type = LayerType::kFullAttention;
  std::vector<float> input_norm;  // [hidden]
  std::vector<float> post_norm;   // [hidden]
  std::vector<float> sinks;       // [heads]
  Linear q, k, v, o, router;
  std::vector<WeightView> gate_up;  // per expert, (2 intermediate, hidden)
  std::vector<WeightView> down;     // per expert, (hidden, intermediate)
  std::vector<PackedMatrix> packed_gate_up, packed_down;  // empty without a PackedStore
  std::vector<float> gate_up_bias;  // [experts, 2 intermediate]
  std::vector<float> down_bias;     // [experts, hidden]
};

struct Weights {
  Checkpoint checkpoint;
  WeightView embedding;           // (vocab, hidden)
  WeightView head;                // (vocab, hidden); the embedding if tied
  PackedMatrix packed_head;
  // Of a large vocabulary: the head once more in MXFP4, and how far each of its rows is from the true one (screened_head.h).
  PackedMatrix head_screen;
  std::span<const float> screen_doubts;  // [vocab]
  std::vector<float> final_norm;  // [hidden]
  // What the inputs of packed gate_up matrices are rounded to; set by the PackedStore.
  ActivationBits gate_up_inputs = ActivationBits::k15;
  bool packed() const { return packed_head.data != nullptr; }
  std::vector<LayerWeights> layers;
  // To be called before these experts' packed matrices are read; set by the PackedStore.
  std::function<void(int layer, std::span<const int> experts)> need_experts;
  // The same for panels of packed_head, empty: all.
  std::function<void(std::span<const int> panels)> need_head;
  std::vector<std::unique_ptr<std::uint64_t[]>> copies;  // of tensors that lie misaligned in the file
};

Result<Weights> bind_weights(Checkpoint checkpoint);

}  // namespace capstan::engine

// AdamW over one flat vector of float parameters, with gradient clipping by the global norm.
//
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p = p - rate * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay * p)      t counts updates from 1
//
// Weight decay applies to the parts listed in `decayed` only: matrices, not norms, biases and sinks.
// Everything is float32 master data; the order of operations is fixed, so equal inputs give equal bits.
// Threads: one owner.  Cost: about 30 bytes of memory traffic per parameter and step.
// Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace capstan::trainer {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
};

// A range [begin, end) of the flat vector.
struct ParameterRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// The first and second moments; both have the length of the parameter vector.
struct AdamWState {
  std::vector<float> first;
  std::vector<float> second;
  std::uint64_t updates = 0;  // how many were applied; skipped steps do not count
};

// The Euclidean norm of all gradients, in double, summed in order. Not finite if any gradient is not.
double gradient_norm(std::span<const float> gradients);

// One update, in place. `gradient_scale` multiplies every gradient first (clipping). `decayed` is sorted and
// disjoint. All spans have one length.
void adamw_update(const AdamWConfig& config, double rate, double gradient_scale,
                  std::span<const ParameterRange> decayed, std::span<const float> gradients,
                  std::span<float> parameters, AdamWState& state);

}  // namespace capstan::trainer

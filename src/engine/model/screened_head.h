// The logits of a large vocabulary in two readings, so that choosing a token does not read the whole head.
//
// The first reading takes the screen: the head in MXFP4 with 8-bit inputs, 40 % of the bytes of one of 10 bits. Its logits are
// near ones. The second one computes true logits, with the same bits as without a screen, for the few tokens that may be chosen.
// How far a near logit may be from the true one is known well: a row's doubt is the size of what its screen lacks, an error is a
// sum of thousands of roundings times it, and how large these come out is measured on the hundreds of tokens that were computed
// both ways. kMarginDeviations of that is missed once in 10^15 times.
//
//   ScreenedLogits row(near, doubts, [&](std::span<const int> panels, float* out) { ... });
//   row.refine(tokens);                       // these are true now, and their panels' other tokens too
//   if (row.values()[i] + row.deviation() * row.doubts()[i] < best) …   // token i cannot be it
//
// Cost: refine() reads kPanelRows rows for a token. Threads: one owner.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/kernels/packed.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

inline constexpr int kScreenedVocabMin = 8'192;  // below, a head is read as fast as what would spare it
inline constexpr float kMarginDeviations = 8;

// Of the rows [begin, end) of a matrix that is packed as `type`: the size (2-norm) of what that changes, and a hundredth of the
// row's own for what 8 bits change of its inputs.
void screen_doubts(const WeightView& weight, PackedType type, int begin, int end, float* out);

class ScreenedLogits {
 public:
  // Computes the true logits of panels, kPanelRows each, one after the other; those past the vocabulary are not looked at.
  using Compute = std::function<void(std::span<const int> panels, float* out)>;

  // `near`: of all tokens, becomes true where refine() has been. Views, which must live as long.
  ScreenedLogits(std::span<float> near, std::span<const float> doubts, Compute compute);

  std::span<const float> values() const { return values_; }
  std::span<const float> doubts() const { return doubts_; }
  // A near value is no farther from the true one than this times its doubt.
  float deviation() const { return deviation_; }
  bool is_true(int panel) const { return true_[static_cast<std::size_t>(panel)]; }
  std::span<const int> true_panels() const { return true_panels_; }  // in the order in which they became it
  // Makes these and the others of their panels true.
  void refine(std::span<const TokenId> tokens);

 private:
  std::span<float> values_;
  std::span<const float> doubts_;
  Compute compute_;
  std::vector<bool> true_;  // by panel
  std::vector<int> true_panels_;
  std::vector<float> computed_;
  double squares_ = 0;  // of errors over doubts
  std::size_t errors_ = 0;
  float deviation_ = 0;  // kMarginDeviations times their root mean square
};

}  // namespace capstan::engine

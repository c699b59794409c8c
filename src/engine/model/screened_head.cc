#include "engine/model/screened_head.h"

#include <algorithm>
#include <cmath>

#include "base/assert.h"

namespace capstan::engine {
namespace {

constexpr float kInputDoubt = 0.01f;  // more than 8 bits change of a block, in parts of it

}  // namespace

void screen_doubts(const WeightView& weight, PackedType type, int begin, int end, float* out) {
  CAPSTAN_ASSERT(begin % kPanelRows == 0);
  const std::size_t bytes = panel_bytes(type, weight.cols);
  std::vector<std::uint8_t> panel(bytes);
  for (int row = begin; row < end; ++row) {
    if (row % kPanelRows == 0) pack_panels(weight, type, row / kPanelRows, row / kPanelRows + 1, panel.data());
    const PackedMatrix packed{type, kPanelRows, weight.cols, panel.data()};
    double lost = 0, all = 0;
    for (int col = 0; col < weight.cols; ++col) {
      const double value = weight_at(weight, row, col), off = value - packed_at(packed, row % kPanelRows, col);
      lost += off * off;
      all += value * value;
    }
    *out++ = static_cast<float>(std::sqrt(lost + all * kInputDoubt * kInputDoubt));
  }
}

ScreenedLogits::ScreenedLogits(std::span<float> near, std::span<const float> doubts, Compute compute)
    : values_(near), doubts_(doubts), compute_(std::move(compute)), true_((near.size() + kPanelRows - 1) / kPanelRows) {
  CAPSTAN_ASSERT(doubts.size() == near.size());
}

void ScreenedLogits::refine(std::span<const TokenId> tokens) {
  const std::size_t before = true_panels_.size();
  for (const TokenId token : tokens) {
    const int panel = token / kPanelRows;
    if (is_true(panel)) continue;
    true_[static_cast<std::size_t>(panel)] = true;
    true_panels_.push_back(panel);
  }
  const std::span<const int> panels = std::span<const int>(true_panels_).subspan(before);
  if (panels.empty()) return;
  computed_.resize(panels.size() * kPanelRows);
  compute_(panels, computed_.data());
  const float* from = computed_.data();
  for (const int panel : panels) {
    const std::size_t first = static_cast<std::size_t>(panel) * kPanelRows;
    for (std::size_t i = first; i < first + kPanelRows; ++i, ++from) {
      if (i >= values_.size()) continue;
      if (doubts_[i] > 0) {
        const double error = (*from - values_[i]) / doubts_[i];
        squares_ += error * error;
        ++errors_;
      }
      values_[i] = *from;
    }
  }
  if (errors_ > 0) deviation_ = kMarginDeviations * static_cast<float>(std::sqrt(squares_ / static_cast<double>(errors_)));
}

}  // namespace capstan::engine

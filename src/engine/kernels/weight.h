// WeightView: a matrix as it lies in a checkpoint's mapping, and how its numbers are stored.
//
// Row-major [rows, cols]: `rows` outputs, `cols` inputs (PyTorch's Linear). With `input_major` the memory is
// [cols, rows] instead (Hugging Face's BF16 experts). MXFP4: 32 consecutive inputs share one e8m0 scale byte;
// `data` is [rows, cols/32, 16], byte i of a block holds input 2i in its low nibble and 2i+1 in the high one;
// value = fp4[nibble] * 2^(scale - 127). A view: it owns nothing.
// Source: OCP Microscaling Formats v1.0; openai/gpt-oss gpt_oss/torch/weights.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace capstan::engine {

enum class WeightType { kF32, kF16, kBf16, kMxfp4 };

inline constexpr int kMxfp4Block = 32;

struct WeightView {
  WeightType type = WeightType::kF32;
  bool input_major = false;  // not with kMxfp4
  int rows = 0;
  int cols = 0;
  const std::uint8_t* data = nullptr;
  const std::uint8_t* scales = nullptr;  // kMxfp4 only: [rows, cols / 32]
};

// One number, the slow and obvious way; `row` is the output, `col` the input.
float weight_at(const WeightView& weight, int row, int col);

float f32_from_bf16(std::uint16_t bits);
float f32_from_f16(std::uint16_t bits);
std::size_t bytes_per_element(WeightType type);  // not kMxfp4

}  // namespace capstan::engine

// WeightView: a matrix as it lies in a checkpoint's mapping, and how its numbers are stored.
//
// Row-major [rows, cols]: `rows` outputs, `cols` inputs (PyTorch's Linear). With `input_major` the memory is
// [cols, rows] instead (Hugging Face's BF16 experts). MXFP4: 32 consecutive inputs share one e8m0 scale byte;
// `data` is [rows, cols/32, 16], byte i of a block holds input 2i in its low nibble and 2i+1 in the high one;
// value = fp4[nibble] * 2^(scale - 127). A view: it owns nothing.
//
// GGUF's block formats: kGgufMxfp4 has 17 bytes for 32 inputs, the scale byte and then byte i with input i in its
// low nibble and input i + 16 in its high one; kQ8_0 has 34, an f16 scale and 32 signed bytes. GGUF keeps the
// gate's and the up projection's rows apart where safetensors interleave them: with `odd_rows` the even rows
// lie one after the other at `data`, the odd ones at `odd_rows`.
// Source: OCP Microscaling Formats v1.0; openai/gpt-oss gpt_oss/torch/weights.py; ggml's block_mxfp4, block_q8_0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace capstan::engine {

enum class WeightType { kF32, kF16, kBf16, kMxfp4, kGgufMxfp4, kQ8_0 };

inline constexpr int kMxfp4Block = 32;

struct WeightView {
  WeightType type = WeightType::kF32;
  bool input_major = false;  // only kF32, kF16, kBf16 without odd_rows
  int rows = 0;
  int cols = 0;
  const std::uint8_t* data = nullptr;
  const std::uint8_t* scales = nullptr;  // kMxfp4 only: [rows, cols / 32]
  const std::uint8_t* odd_rows = nullptr;

  bool is_mxfp4() const { return type == WeightType::kMxfp4 || type == WeightType::kGgufMxfp4; }
  // Where a row begins; not with input_major.
  const std::uint8_t* row_begin(int row) const;
};

// Of one row of a type as it is stored (kMxfp4: without its scales).
std::size_t row_bytes(WeightType type, int cols);

// 32 inputs of an MXFP4 matrix: the e8m0 scale and the sixteen bytes in safetensors' order of nibbles.
struct Mxfp4Block {
  std::uint8_t scale;
  std::uint8_t pairs[kMxfp4Block / 2];
};
Mxfp4Block mxfp4_block(const WeightView& weight, int row, int block);

// One number, the slow and obvious way; `row` is the output, `col` the input.
float weight_at(const WeightView& weight, int row, int col);

float f32_from_bf16(std::uint16_t bits);
float f32_from_f16(std::uint16_t bits);
std::size_t bytes_per_element(WeightType type);  // kF32, kF16, kBf16

}  // namespace capstan::engine

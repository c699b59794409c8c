// What the files of each instruction set share: the shape of a panel, and their entries.
#pragma once

#include "engine/kernels/packed.h"

#define CAPSTAN_INLINE inline __attribute__((always_inline))

namespace capstan::engine {

// Bits of the numbers' second part, 0 for those of one part.
constexpr std::size_t low_bits(PackedType type) {
  switch (type) {
    case PackedType::kInt10:
      return 2;
    case PackedType::kInt12:
      return 4;
    default:
      return 0;
  }
}
// Of the first part.
constexpr std::size_t high_bits(PackedType type) {
  return type == PackedType::kMxfp4 || type == PackedType::kInt4 ? 4 : 8;
}
constexpr std::size_t bits_of(PackedType type) { return high_bits(type) + low_bits(type); }
// Bytes of a block's first parts where there are second ones.
inline constexpr std::size_t kHighBytes = static_cast<std::size_t>(kPanelRows) * kPackedBlock;

struct PanelShape {
  std::size_t blocks = 0;
  std::size_t scale_bytes = 0;   // of a block
  std::size_t number_bytes = 0;  // of a block
  std::size_t numbers_at = 0;    // in the panel
  std::size_t bytes = 0;
  float factor = 1;  // of a scale: MXFP4's numbers are doubled

  PanelShape(PackedType type, int cols)
      : blocks(static_cast<std::size_t>(cols) / kPackedBlock),
        scale_bytes(type == PackedType::kMxfp4 ? kPanelRows : 2 * kPanelRows),
        number_bytes(static_cast<std::size_t>(kPanelRows) * kPackedBlock * bits_of(type) / 8),
        numbers_at((blocks * scale_bytes + 63) / 64 * 64),
        bytes(numbers_at + blocks * number_bytes),
        factor(type == PackedType::kMxfp4 ? 0.5f : 1.0f) {}
};

// fp4 × 2 + 12, by nibble.
inline constexpr std::uint8_t kFp4Offset[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

// Writes 16 sums of a token to its outputs.
inline void store_panel(const PackedTask& task, int panel, int token, const float* sums) {
  const int row = panel * kPanelRows;
  const int count = task.weight.rows - row < kPanelRows ? task.weight.rows - row : kPanelRows;
  float* out = task.out + static_cast<std::size_t>(token) * task.out_stride + row;
  for (int i = 0; i < count; ++i) {
    const float value = task.bias == nullptr ? sums[i] : sums[i] + task.bias[row + i];
    out[i] = task.accumulate ? out[i] + value : value;
  }
}

// run<count>(), of a count up to kMost; nothing for none.
template <int kMost, class Run>
CAPSTAN_INLINE void with_tokens(int count, const Run& run) {
  if constexpr (kMost > 0) {
    if (count == kMost) return run.template operator()<kMost>();
    with_tokens<kMost - 1>(count, run);
  }
}

// Panels that meet a cached part of the inputs one after the other.
inline constexpr int kPanelsTogether = 8;

// Panels [begin, end) of a task.
void packed_panels_avx2(const PackedTask& task, int begin, int end);
void packed_panels_avx512(const PackedTask& task, int begin, int end);
void packed_panels_amx(const PackedTask& task, int begin, int end);
bool amx_is_granted();  // by the machine, one with AVX-512, and the system; asks for it

// This thread's memory of at least so many bytes, aligned to 64; until the next call. A function of packed.cc, so that
// files that are compiled for one instruction set instantiate nothing that others might link.
std::uint8_t* thread_scratch(std::size_t bytes);

// 32 inputs: their scale and the sum of their integers.
inline constexpr float kActivationMax = 127 * 256, kByteActivationMax = 127;
inline constexpr float kActivationMin = 1e-30f;  // a block of nothing larger is zero
// What a block is multiplied with before it is rounded.
inline float activation_inverse(float most, float largest) { return most > kActivationMin ? largest / most : 0; }
struct QuantizedBlock {
  float scale = 0;
  std::int32_t sum = 0;
};
void quantize_block_avx2(const float* x, std::int16_t* wide, float* scale);
void quantize_bytes_avx2(const float* x, std::int8_t* bytes, float* scale);
QuantizedBlock quantize_block_avx512(const float* x, std::int8_t* high, std::int8_t* low);

}  // namespace capstan::engine

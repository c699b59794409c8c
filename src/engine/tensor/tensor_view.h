// TensorView: a named array of numbers inside a mapped file, whatever the file's format.
//
// A view: it owns nothing. kMxfp4 and kQ8_0 are GGUF's block formats: 32 numbers of the last dimension share 17 or 34
// bytes (engine/kernels/weight.h has their layout).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::engine {

enum class DType {
  kBool,
  kU8,
  kI8,
  kF8E5m2,
  kF8E4m3,
  kI16,
  kU16,
  kF16,
  kBf16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
  kMxfp4,
  kQ8_0
};

std::string_view dtype_name(DType type);  // "BF16", …
int dtype_bytes(DType type);              // of one number, or of one block
int dtype_block(DType type);              // numbers of a block: 1, or 32

struct TensorView {
  DType dtype = DType::kU8;
  std::vector<std::uint64_t> shape;     // outermost first
  std::span<const std::uint8_t> bytes;  // row-major, little-endian; at any alignment

  std::uint64_t elements() const;
  std::string shape_text() const;  // "[8, 384, 8, 16]"
};

using TensorMap = std::map<std::string, TensorView, std::less<>>;

}  // namespace capstan::engine

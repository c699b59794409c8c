// Writes one .safetensors file: named tensors that any reader of Hugging Face checkpoints can map.
//
//   std::vector<SafetensorsEntry> entries{{"model.norm.weight", TensorType::kBf16, {256}, [&] { return bytes;
//   }}}; CAPSTAN_CHECK(write_safetensors(path, entries));
//
// Layout: u64 length of the header, the header (JSON, padded with spaces to 8 bytes), then the data in order.
// The file appears whole or not at all (temporary name, fsync, rename).
// Threads: any.  Cost: one tensor's bytes in memory at a time.  Failure: kIo, kExhausted.
// Source: github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::trainer {

enum class TensorType { kBf16, kF32, kU8 };

struct SafetensorsEntry {
  std::string name;
  TensorType type = TensorType::kBf16;
  std::vector<std::uint64_t> shape;
  // Makes the tensor's bytes: row-major, little-endian; exactly the shape's size.
  std::function<std::vector<std::uint8_t>()> bytes;
};

Result<void> write_safetensors(const std::filesystem::path& path,
                               const std::vector<SafetensorsEntry>& entries);

// The upper half of a float, rounded to nearest, ties to even; NaN stays NaN.
std::uint16_t bf16_of(float value);

}  // namespace capstan::trainer

// Safetensors: the tensors of a checkpoint directory, mapped read-only from disk.
//
//   CAPSTAN_TRY(auto tensors, Safetensors::open_directory("/models/gpt-oss-20b"));
//   const TensorView* norm = tensors.find("model.norm.weight");   // nullptr if absent
//
// A directory holds model.safetensors, or shards named by model.safetensors.index.json. Headers are checked
// whole before anything is used: length, JSON, dtypes, shapes, sizes, offsets inside the file, no overlap, no
// holes. Failure: kNotFound (no such file), kCorrupt with file, tensor and what is wrong. Threads: immutable
// after open.  Cost: one mmap a file; pages are read when touched. Ownership: views live as long as the
// Safetensors. A file that is cut while mapped ends the process (SIGBUS). Source:
// github.com/huggingface/safetensors, "Format".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

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
  kU64
};

std::string_view dtype_name(DType type);  // "BF16", …
int dtype_bytes(DType type);

struct TensorView {
  DType dtype = DType::kU8;
  std::vector<std::uint64_t> shape;
  std::span<const std::uint8_t> bytes;  // row-major, little-endian; at any alignment

  std::uint64_t elements() const;
  std::string shape_text() const;  // "[8, 384, 8, 16]"
};

// Longer headers are refused; the format's own bound.
inline constexpr std::uint64_t kSafetensorsHeaderMax = 100'000'000;

using TensorMap = std::map<std::string, TensorView, std::less<>>;

// The tensors of one file's bytes, as views into them. `label` names the file in errors.
Result<TensorMap> parse_safetensors(std::span<const std::uint8_t> file, std::string_view label);

// Gives the whole pages of a range of a mapped file back to the system; they are read again when touched.
void forget_pages(const void* begin, std::size_t bytes);

class Safetensors {
 public:
  static Result<Safetensors> open_directory(const std::filesystem::path& directory);
  static Result<Safetensors> open_file(const std::filesystem::path& path);

  const TensorView* find(std::string_view name) const;
  const TensorMap& tensors() const { return tensors_; }
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  struct Mapping;
  Result<TensorMap> map_file(const std::filesystem::path& path);

  std::vector<std::shared_ptr<Mapping>> mappings_;  // shared with nobody; shared_ptr only to stay movable
  TensorMap tensors_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace capstan::engine

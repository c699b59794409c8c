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
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/tensor/mapped_file.h"
#include "engine/tensor/tensor_view.h"

namespace capstan::engine {

// Longer headers are refused; the format's own bound.
inline constexpr std::uint64_t kSafetensorsHeaderMax = 100'000'000;

// The tensors of one file's bytes, as views into them. `label` names the file in errors.
Result<TensorMap> parse_safetensors(std::span<const std::uint8_t> file, std::string_view label);

class Safetensors {
 public:
  static Result<Safetensors> open_directory(const std::filesystem::path& directory);
  static Result<Safetensors> open_file(const std::filesystem::path& path);

  const TensorView* find(std::string_view name) const;
  const TensorMap& tensors() const { return tensors_; }
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  Result<TensorMap> map_file(const std::filesystem::path& path);

  std::vector<MappedFile> mappings_;
  TensorMap tensors_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace capstan::engine

// Gguf: the tensors and the metadata of a GGUF file, or of all files of a split one, mapped from disk.
//
//   CAPSTAN_TRY(Gguf file, Gguf::open("gpt-oss-20b-mxfp4.gguf"));          // or …-00001-of-00003.gguf, any part of it
//   const TensorView* norm = file.find("output_norm.weight");                // nullptr if absent
//   std::optional<std::string_view> arch = file.metadata().string("general.architecture");
//
// Versions 2 and 3, little-endian; tensors of F32, F16, BF16, Q8_0 and MXFP4. Everything is checked before it is used:
// counts and lengths against what the file has left, types, dimensions, offsets, alignment, overlap, names that stand
// twice. Failure: kNotFound, kCorrupt, kUnsupported, with the file, the key or tensor, the field, and what would be
// right. Cost: one mmap and one pass over the header. Threads: immutable. Ownership: views live as long as the Gguf.
// Source: ggml's docs/gguf.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/tensor/mapped_file.h"
#include "engine/tensor/tensor_view.h"

namespace capstan::engine {

enum class GgufType : std::uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

struct GgufArray {
  GgufType type = GgufType::kU8;  // not kArray
  std::uint64_t count = 0;
  std::span<const std::uint8_t> bytes;  // as in the file, lengths checked
};

using GgufValue = std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view, GgufArray>;

class GgufMetadata {
 public:
  // nullopt if the key is absent or of another kind; numbers convert where they lose nothing.
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::vector<std::string_view>> strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;

  const GgufValue* find(std::string_view key) const;
  bool add(std::string key, GgufValue value) { return values_.emplace(std::move(key), value).second; }

 private:
  std::map<std::string, GgufValue, std::less<>> values_;
};

struct GgufContents {
  GgufMetadata metadata;
  TensorMap tensors;
};

// One file's bytes, as views into them. `label` names the file in errors.
Result<GgufContents> parse_gguf(std::span<const std::uint8_t> file, std::string_view label);

// The file itself, or all parts of a split one, in order ("name-00002-of-00003.gguf" names its parts). kNotFound if a
// part is missing.
Result<std::vector<std::filesystem::path>> gguf_parts(const std::filesystem::path& path);

class Gguf {
 public:
  static Result<Gguf> open(const std::filesystem::path& path);

  const TensorView* find(std::string_view name) const;
  const TensorMap& tensors() const { return contents_.tensors; }
  const GgufMetadata& metadata() const { return contents_.metadata; }
  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  std::vector<MappedFile> mappings_;
  GgufContents contents_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace capstan::engine

// Writes GGUF: byte by byte for hostile files, and whole ones with the weights of a checkpoint in Hugging Face's layout.
//
//   GgufBuilder file; file.u32("gpt-oss.block_count", 4); file.tensor("output_norm.weight", {64}, kGgufF32, bytes);
//   write(file.build());
//   std::vector<std::string> parts = gguf_of(config, tensors, {.dense = "Q8_0", .parts = 2});
//
// Shares no code with the reader. Failure: asserts (it is test code).  Source: ggml's docs/gguf.md; llama.cpp
// conversion/gpt_oss.py for names and the split of gate and up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace capstan::engine::testing {

inline constexpr std::uint32_t kGgufF32 = 0, kGgufF16 = 1, kGgufQ8_0 = 8, kGgufBf16 = 30, kGgufMxfp4 = 39;

class GgufBuilder {
 public:
  void string(std::string_view key, std::string_view value);
  void u32(std::string_view key, std::uint32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void strings(std::string_view key, const std::vector<std::string>& values);
  void i32s(std::string_view key, const std::vector<std::int32_t>& values);
  void raw(std::string_view key, std::uint32_t type, std::string_view bytes);
  // `shape` outermost first, as everywhere in this project.
  void tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::uint32_t type, std::string bytes);
  void append_tensors(const GgufBuilder& from) {
    tensors_.insert(tensors_.end(), from.tensors_.begin(), from.tensors_.end());
  }
  std::string build(std::uint64_t alignment = 32) const;

 private:
  void key(std::string_view name, std::uint32_t type);
  struct Tensor {
    std::string head;  // all but the offset
    std::string bytes;
  };
  std::uint64_t count_ = 0;
  std::string keys_;
  std::vector<Tensor> tensors_;
};

struct StoredTensor {
  std::string dtype;  // "BF16", "F16", "F32", "U8"
  std::vector<std::uint64_t> shape;
  std::string_view bytes;
};

struct GgufExport {
  std::string dense = {};  // "Q8_0" or "F32" for matrices outside the experts; empty: as stored
  int parts = 1;
  GgufBuilder start = {};  // keys that come first: a tokenizer's
};

// The files' bytes; experts stay MXFP4 (or, if stored otherwise, as they are).
std::vector<std::string> gguf_of(const Json& config, const std::map<std::string, StoredTensor>& tensors,
                                 const GgufExport& how);

}  // namespace capstan::engine::testing

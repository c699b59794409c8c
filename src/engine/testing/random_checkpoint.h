// RandomCheckpoint: a small gpt-oss checkpoint with random weights, for tests, and its slow and obvious twin.
//
//   RandomCheckpoint checkpoint({.experts_storage = "MXFP4", .seed = 7});
//   checkpoint.write(directory);                      // config.json, model.safetensors (or shards)
//   std::vector<double> logits = checkpoint.logits(tokens);   // (tokens, vocab), computed in double
//
// The twin shares no code with the engine: it holds every weight as a double and recomputes each token's
// attention over the whole sequence. Failure: asserts (it is test code).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/testing/gguf_writer.h"

namespace capstan::engine::testing {

struct CheckpointOptions {
  int layers = 3;
  int hidden = 64;
  int intermediate = 32;
  int head_dim = 32;
  int heads = 4;
  int kv_heads = 2;
  int experts = 4;
  int experts_per_token = 2;
  int vocab = 50;
  int window = 8;
  std::string experts_storage = "MXFP4";  // or "BF16", "F16", "F32" (input-major)
  std::string dense_storage = "BF16";     // or "F16", "F32"
  bool q8_0_grid = false;  // matrices outside the experts hold numbers that Q8_0 keeps; with dense_storage F32
  bool yarn = true;
  bool truncate = false;
  bool tied = false;
  bool layer_types = true;  // false: config.json leaves them out
  int shards = 1;
  std::uint64_t seed = 1;
};

class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(CheckpointOptions options);

  void write(const std::filesystem::path& directory) const;
  std::string config_json() const;
  // The bytes of model.safetensors with the tensors of one shard.
  std::string safetensors(int shard = 0) const;
  // The same weights as GGUF: writes DIRECTORY/NAME.gguf, or its parts, and returns the (first) file.
  std::filesystem::path write_gguf(const std::filesystem::path& directory, const GgufExport& how = {},
                                   const std::string& name = "model") const;
  std::vector<std::string> gguf(const GgufExport& how) const;  // the bytes of its parts
  std::vector<double> logits(const std::vector<std::int32_t>& tokens) const;
  std::vector<std::int32_t> random_tokens(int count, std::uint64_t seed) const;

 private:
  struct Tensor {
    std::string dtype;
    std::vector<std::uint64_t> shape;
    std::string bytes;
  };
  void add(const std::string& name, std::vector<std::uint64_t> shape, double spread, double center = 0);
  void add_experts(const std::string& name, int rows, int cols, double spread);
  void add_mxfp4(const std::string& name, int rows, int cols, double spread);
  void attention(int layer, std::vector<std::vector<double>>& x) const;
  void experts(int layer, std::vector<double>& x) const;
  double uniform();

  CheckpointOptions options_;
  std::uint64_t state_;
  std::map<std::string, std::vector<double>> values_;  // experts as [expert][output][input]
  std::map<std::string, Tensor> tensors_;
};

// A directory under the system's temporary folder that is removed at destruction.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace capstan::engine::testing

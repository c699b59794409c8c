// Checkpoint: a model's files, whichever format they have: what it is (ModelConfig) and its tensors, mapped.
//
//   CAPSTAN_TRY(Checkpoint checkpoint, Checkpoint::open("/models/gpt-oss-20b"));            // Hugging Face's layout
//   CAPSTAN_TRY(Checkpoint checkpoint, Checkpoint::open("/models/gpt-oss-20b-mxfp4.gguf"));
//
// A directory with model.safetensors (or its index) is read as such; one without is searched for a GGUF file (one, or
// the parts of one). Failure: kNotFound (says what was looked for), kInvalid (several GGUF files: names them), and that
// of Safetensors, Gguf and ModelConfig, with the path. Threads: immutable. Cost: see Gguf and Safetensors.
#pragma once

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/tensor/gguf.h"
#include "engine/tensor/model_config.h"
#include "engine/tensor/safetensors.h"

namespace capstan::engine {

struct ModelFiles {
  std::filesystem::path directory;           // where capstan.json, tokenizer.json and packed weights go
  std::vector<std::filesystem::path> gguf;   // in order; empty: safetensors

  bool is_gguf() const { return !gguf.empty(); }
  // A name for people: the directory's, or the GGUF file's without its ending and part.
  std::string name() const;
  // "DIR" or "FILE.gguf", for messages.
  std::string shown() const { return is_gguf() ? gguf.front().string() : directory.string(); }
};

Result<ModelFiles> find_model_files(const std::filesystem::path& model);

class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::filesystem::path& model);

  const ModelFiles& files() const { return files_; }
  const ModelConfig& config() const { return config_; }
  const TensorMap& tensors() const;
  std::uint64_t file_bytes() const;

 private:
  ModelFiles files_;
  ModelConfig config_;
  std::variant<Safetensors, Gguf> data_;
};

}  // namespace capstan::engine

// Model: a gpt-oss checkpoint (a directory of safetensors, or a GGUF file), mapped from disk, and its forward pass.
//
//   CAPSTAN_TRY(auto model, Model::load("/models/gpt-oss-20b", {.threads = 0}));
//   KvCache kv(model->config(), model->kv_type());
//   CAPSTAN_TRY(Logits logits, model->forward(prompt, kv));            // prefill; logits of the last token
//   CAPSTAN_TRY(logits, model->forward(std::array{next}, kv));         // decode one
//
// Several sequences in one step, prefill chunks and decode tokens mixed; experts are grouped over the batch:
//   SequenceStep steps[] = {{.tokens = chunk, .kv = &a, .logits = LogitsOf::kNone}, {.tokens = one, .kv =
//   &b}}; CAPSTAN_CHECK(model->step(steps, logits));
//
// A token's logits have the same bits in every batch, chunking and number of threads, in either arithmetic: each output is
// summed in one order, whoever computes it.
// Source: openai/gpt-oss gpt_oss/torch/model.py; transformers modeling_gpt_oss.py.
// Threads: one caller at a time (it holds working memory and a thread pool).
// Memory: weights stay in the file's mapping; working memory grows to that of kChunkTokensMax tokens a step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/model/kv_cache.h"
#include "engine/model/packed_store.h"
#include "engine/model/screened_head.h"
#include "engine/tensor/model_config.h"

namespace capstan::engine {

enum class LogitsOf { kNone, kLast, kAll };

// Tokens that continue one sequence. A KvCache stands at most once in a step.
struct SequenceStep {
  std::span<const TokenId> tokens = {};
  KvCache* kv = nullptr;
  LogitsOf logits = LogitsOf::kLast;
  bool screened = false;  // near logits are enough; Model::screened() gives them. Without effect unless Model::screens()
};

// f32, row-major [rows, vocab]; rows in the order of the steps and of their tokens.
struct Logits {
  int vocab = 0;
  std::vector<float> values;
  std::vector<float> inputs;  // of the head, [rows, hidden], if any step was screened

  int rows() const { return vocab == 0 ? 0 : static_cast<int>(values.size() / vocab); }
  std::span<const float> row(int index) const {
    return std::span(values).subspan(static_cast<std::size_t>(index) * vocab, vocab);
  }
};

// kF32: weights exactly as stored, sums in f32. kInteger: MXFP4 experts as stored and the rest rounded to `pack.dense`, times
// activations in 15 bits, for the experts' first matrices 8 (kernels/packed.h, packed_store.h); a checkpoint whose experts
// are not MXFP4 is run in f32 all the same.
enum class Arithmetic { kF32, kInteger };

struct ModelOptions {
  int threads = 0;  // 0: all hardware threads that this process may use
  Arithmetic arithmetic = Arithmetic::kF32;
  PackOptions pack = {};
  PackProgress progress = {};  // while weights are packed for the first time
  std::optional<bool> yarn_truncate = {};  // against the checkpoint (or, for GGUF, against gpt-oss's false)
};

// Of what people ask for: "f32", "int12", "int10", "int8", "int4", or "default", which serving uses. kInvalid for another name.
Result<ModelOptions> model_options(std::string_view arithmetic, int threads);

class Model {
 public:
  // Failure: kNotFound (no config.json, no weights), kInvalid or kCorrupt (names file, tensor or field, and
  // what would be right), kExhausted (does not fit into this machine's memory: says how much it needs).
  static Result<std::unique_ptr<Model>> load(const std::filesystem::path& path, ModelOptions options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const;
  // Bytes of all weights, as in the file.
  std::uint64_t weight_bytes() const;
  // "mxfp4" or "bf16" (or "f16", "f32"): how the experts are stored.
  std::string expert_storage() const;
  int threads() const;
  // "f32", or "int8" and so on: what the dense weights were rounded to.
  std::string arithmetic() const;
  std::uint64_t packed_bytes() const;  // 0 in f32
  // What keys and values should be kept in: f32 in f32 arithmetic, else f16. A step takes caches of either.
  KvType kv_type() const;
  // Of weights that one token meets when it is decoded alone; of a head with a screen, the screen's.
  std::uint64_t bytes_per_token() const;

  // Appends every step's tokens to its cache and writes the wanted logits into `logits` (replacing it).
  // Failure: kInvalid for a token outside the vocabulary, or positions beyond positions_max; nothing changes
  // then. kExhausted if a cache's pool is full; after KvCache::reserve of every step's tokens it cannot be.
  Result<void> step(std::span<const SequenceStep> steps, Logits& logits);
  // Whether the head has a screen, which a large one has unless `pack` is without.
  bool screens() const;
  // A row of near logits, of a screened step; a view of `logits` and of the model.
  ScreenedLogits screened(Logits& logits, int row);

  // One sequence. `tokens` may be of any length up to positions_max.
  Result<Logits> forward(std::span<const TokenId> tokens, KvCache& kv, LogitsOf logits = LogitsOf::kLast);

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace capstan::engine

// ModelConfig: what config.json of a gpt-oss checkpoint says, checked.
//
//   CAPSTAN_TRY(ModelConfig config, read_model_config("/models/gpt-oss-20b"));
//
// Reads DIR/config.json and, if it is there, the end-of-sequence ids of DIR/generation_config.json.
// Failure: kNotFound without config.json; kInvalid with the field's name and what would be right.
// Threads: a value.  Source: transformers configuration_gpt_oss.py; openai/gpt-oss gpt_oss/torch/model.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace capstan::engine {

using TokenId = std::int32_t;

// What a checkpoint may ask for; more is refused as a mistake or an attack.
inline constexpr int kLayersMax = 1024;
inline constexpr int kWidthMax = 1 << 20;
inline constexpr int kHeadDimMax = 256;
inline constexpr int kHeadsMax = 4096;
inline constexpr int kExpertsMax = 4096;
inline constexpr int kVocabMax = 1 << 24;
inline constexpr int kPositionsMax = 1 << 24;

// YaRN (Peng et al. 2023): frequencies between `beta_fast` and `beta_slow` rotations are interpolated.
struct YarnScaling {
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  double original_positions = 4096;
  bool truncate = true;         // round the ramp's bounds to whole dimensions; gpt-oss says false
  double attention_factor = 0;  // 0: 0.1 ln(factor) + 1
};

struct RopeConfig {
  double theta = 150000;
  bool yarn = false;  // false: plain RoPE (rope_scaling absent or null)
  YarnScaling scaling = {};
};

enum class LayerType { kSlidingAttention, kFullAttention };

struct ModelConfig {
  int layers = 0;
  int hidden = 0;
  int intermediate = 0;
  int head_dim = 0;
  int heads = 0;
  int kv_heads = 0;
  int experts = 0;
  int experts_per_token = 0;
  int vocab = 0;
  int sliding_window = 0;  // keys that a query sees in a sliding layer, its own included
  int positions_max = 0;
  float norm_epsilon = 1e-5f;
  float swiglu_limit = 7.0f;
  bool attention_bias = true;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  std::vector<LayerType> layer_types;  // one per layer
  std::vector<TokenId> eos_token_ids;  // generation_config.json's, else config.json's; may be empty

  int q_dim() const { return heads * head_dim; }
  int kv_dim() const { return kv_heads * head_dim; }
  int heads_per_kv() const { return heads / kv_heads; }
};

// Fields that contradict each other, in words; every one alone is within its bounds.
std::optional<std::string> wrong_combination(const ModelConfig& config);
Result<ModelConfig> parse_model_config(const Json& config);
Result<ModelConfig> read_model_config(const std::filesystem::path& directory);

// inv_freq, one per half of head_dim, and the factor on cos and sin (1 for plain RoPE).
struct RopeFrequencies {
  std::vector<double> inverse;
  double concentration = 1;
};
RopeFrequencies rope_frequencies(const RopeConfig& rope, int head_dim);

}  // namespace capstan::engine

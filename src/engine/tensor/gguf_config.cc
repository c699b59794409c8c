// Every key is read by name with its bounds; the first error wins, and reading goes on with zeros.
#include "engine/tensor/gguf_config.h"

namespace capstan::engine {
namespace {

constexpr std::string_view kArchitecture = "gpt-oss";

class KeyReader {
 public:
  explicit KeyReader(const GgufMetadata& metadata) : metadata_(metadata) {}

  int integer(std::string_view name, std::int64_t high, std::optional<int> absent = {}) {
    const std::string key = fmt::format("{}.{}", kArchitecture, name);
    if (metadata_.find(key) == nullptr && absent) return *absent;
    const auto value = metadata_.integer(key);
    if (value && *value >= 1 && *value <= high) return static_cast<int>(*value);
    refuse(key, fmt::format("must be a whole number in 1..{}", high));
    return 1;
  }
  double number(std::string_view name, double low, double high, std::optional<double> absent = {}) {
    const std::string key = fmt::format("{}.{}", kArchitecture, name);
    if (metadata_.find(key) == nullptr && absent) return *absent;
    const auto value = metadata_.number(key);
    if (value && *value >= low && *value <= high) return *value;
    refuse(key, fmt::format("must be a number in {}..{}", low, high));
    return low;
  }
  void refuse(std::string_view key, std::string_view what) {
    if (!error_)
      error_ = Error{Code::kCorrupt,
                     fmt::format("key '{}' {}{}", key, metadata_.find(key) == nullptr ? "is missing; it " : "", what),
                     std::string(key)};
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const GgufMetadata& metadata_;
  std::optional<Error> error_;
};

Result<void> read_rope(const GgufMetadata& metadata, KeyReader& keys, RopeConfig& rope) {
  rope.theta = keys.number("rope.freq_base", 1.000001, 1e12, 150000);
  const std::string_view type = metadata.string("gpt-oss.rope.scaling.type").value_or("none");
  if (type == "none") return {};
  if (type != "yarn")
    return fail(Code::kUnsupported, "key 'gpt-oss.rope.scaling.type' is '{}'; gpt-oss uses 'yarn' (or 'none')", type);
  rope.yarn = true;
  rope.scaling.factor = keys.number("rope.scaling.factor", 1, 1e6);
  rope.scaling.original_positions = keys.number("rope.scaling.original_context_length", 1, kPositionsMax, 4096);
  rope.scaling.beta_fast = keys.number("rope.scaling.yarn_beta_fast", 1e-6, 1e6, 32);
  rope.scaling.beta_slow = keys.number("rope.scaling.yarn_beta_slow", 1e-6, 1e6, 1);
  rope.scaling.truncate = false;
  return {};
}

// The end of an answer, of a turn and of a message: what llama.cpp stops at.
void read_eos(const GgufMetadata& metadata, ModelConfig& config) {
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const auto id = metadata.integer(key);
    if (id && *id >= 0 && *id < config.vocab) config.eos_token_ids.push_back(static_cast<TokenId>(*id));
  }
}

}  // namespace

Result<ModelConfig> gguf_model_config(const Gguf& file) {
  const GgufMetadata& metadata = file.metadata();
  const auto architecture = metadata.string("general.architecture");
  if (!architecture) return fail(Code::kCorrupt, "key 'general.architecture' is missing; it must be 'gpt-oss'");
  if (*architecture != kArchitecture)
    return fail(Code::kUnsupported, "key 'general.architecture' is '{}'; this engine runs 'gpt-oss'", *architecture);
  KeyReader keys(metadata);
  ModelConfig config;
  config.layers = keys.integer("block_count", kLayersMax);
  config.hidden = keys.integer("embedding_length", kWidthMax);
  config.intermediate = metadata.find("gpt-oss.expert_feed_forward_length") != nullptr
                            ? keys.integer("expert_feed_forward_length", kWidthMax)
                            : keys.integer("feed_forward_length", kWidthMax);
  config.heads = keys.integer("attention.head_count", kHeadsMax);
  config.kv_heads = keys.integer("attention.head_count_kv", kHeadsMax, config.heads);
  config.head_dim = keys.integer("attention.key_length", kHeadDimMax, 64);
  if (keys.integer("attention.value_length", kHeadDimMax, config.head_dim) != config.head_dim)
    keys.refuse("gpt-oss.attention.value_length", fmt::format("must be key_length, {}", config.head_dim));
  config.experts = keys.integer("expert_count", kExpertsMax);
  config.experts_per_token = keys.integer("expert_used_count", kExpertsMax, 4);
  config.sliding_window = keys.integer("attention.sliding_window", kPositionsMax, 128);
  config.positions_max = keys.integer("context_length", kPositionsMax, 131072);
  config.norm_epsilon = static_cast<float>(keys.number("attention.layer_norm_rms_epsilon", 0, 1, 1e-5));
  CAPSTAN_CHECK(read_rope(metadata, keys, config.rope));
  const TensorView* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2 || embedding->shape[0] > kVocabMax)
    return fail(Code::kCorrupt, "tensor 'token_embd.weight' is missing, or not [vocabulary of at most {}, {}]",
                kVocabMax, config.hidden);
  config.vocab = static_cast<int>(embedding->shape[0]);
  config.tie_word_embeddings = file.find("output.weight") == nullptr;
  if (keys.error()) return std::unexpected(*keys.error());
  if (const auto wrong = wrong_combination(config))
    return fail(Code::kCorrupt, "keys 'gpt-oss.*': {}", *wrong);
  for (int i = 0; i < config.layers; ++i)
    config.layer_types.push_back(i % 2 == 0 ? LayerType::kSlidingAttention : LayerType::kFullAttention);
  read_eos(metadata, config);
  return config;
}

}  // namespace capstan::engine

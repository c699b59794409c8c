// Every field is read by name, with its bounds; an absent one has a default only where transformers has one.
#include "engine/tensor/model_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/file.h"

namespace capstan::engine {
namespace {

// The first error wins; reading goes on with zeros, so the code below reads as a list of fields.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  bool present(std::string_view name) const {
    const Json* value = object_.find(name);
    return value != nullptr && !value->is_null();
  }
  int integer(std::string_view name, std::int64_t low, std::int64_t high, std::optional<int> absent = {}) {
    if (!present(name)) return missing(name, absent, "a whole number");
    const Json& value = *object_.find(name);
    if (value.is_int() && value.as_int() >= low && value.as_int() <= high)
      return static_cast<int>(value.as_int());
    refuse(name, fmt::format("must be a whole number in {}..{}, not {}", low, high, value.dump()));
    return 0;
  }
  double number(std::string_view name, double low, double high, std::optional<double> absent = {}) {
    if (!present(name)) return missing(name, absent, "a number");
    const Json& value = *object_.find(name);
    if (value.is_number() && value.as_double() >= low && value.as_double() <= high) return value.as_double();
    refuse(name, fmt::format("must be a number in {}..{}, not {}", low, high, value.dump()));
    return 0;
  }
  bool boolean(std::string_view name, bool absent) {
    if (!present(name)) return absent;
    const Json& value = *object_.find(name);
    if (value.is_bool()) return value.as_bool();
    refuse(name, fmt::format("must be true or false, not {}", value.dump()));
    return absent;
  }
  void refuse(std::string_view name, std::string_view what) {
    if (error_) return;
    error_ = Error{Code::kInvalid, fmt::format("config.json: {}{} {}", prefix_, name, what),
                   prefix_ + std::string(name)};
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  template <class T>
  T missing(std::string_view name, std::optional<T> absent, std::string_view what) {
    if (absent) return *absent;
    refuse(name, fmt::format("is missing; it must be {}", what));
    return T{};
  }

  const Json& object_;
  std::string prefix_;
  std::optional<Error> error_;
};

Result<RopeConfig> parse_rope(const Json& config, double theta) {
  RopeConfig rope;
  rope.theta = theta;
  const Json* scaling = config.find("rope_scaling");
  if (scaling == nullptr || scaling->is_null()) return rope;
  if (!scaling->is_object())
    return fail(Code::kInvalid, "config.json: rope_scaling must be an object or null");
  std::string type =
      scaling->get_string("rope_type").value_or(scaling->get_string("type").value_or("default"));
  if (type == "default") return rope;
  if (type != "yarn") {
    return fail(Code::kUnsupported,
                "config.json: rope_scaling.rope_type '{}' is not known; gpt-oss uses 'yarn'", type);
  }
  FieldReader fields(*scaling, "rope_scaling.");
  rope.yarn = true;
  rope.scaling.factor = fields.number("factor", 1, 1e6);
  rope.scaling.beta_fast = fields.number("beta_fast", 1e-6, 1e6, 32);
  rope.scaling.beta_slow = fields.number("beta_slow", 1e-6, 1e6, 1);
  const int initial = config.get_int("initial_context_length").value_or(4096);
  rope.scaling.original_positions =
      fields.number("original_max_position_embeddings", 1, kPositionsMax, initial);
  rope.scaling.truncate = fields.boolean("truncate", true);
  rope.scaling.attention_factor = fields.number("attention_factor", 1e-6, 1e6, 0);
  if (fields.error()) return std::unexpected(*fields.error());
  return rope;
}

Result<std::vector<LayerType>> parse_layer_types(const Json& config, int layers) {
  std::vector<LayerType> types;
  const Json* list = config.find("layer_types");
  if (list == nullptr || list->is_null()) {
    for (int i = 0; i < layers; ++i) {
      types.push_back(i % 2 == 0 ? LayerType::kSlidingAttention : LayerType::kFullAttention);
    }
    return types;
  }
  if (!list->is_array() || list->size() != static_cast<std::size_t>(layers)) {
    return fail(Code::kInvalid, "config.json: layer_types must be an array of num_hidden_layers ({}) names",
                layers);
  }
  for (const Json& item : list->items()) {
    if (item.is_string() && item.as_string() == "sliding_attention") {
      types.push_back(LayerType::kSlidingAttention);
    } else if (item.is_string() && item.as_string() == "full_attention") {
      types.push_back(LayerType::kFullAttention);
    } else {
      return fail(Code::kInvalid,
                  "config.json: layer_types[{}] must be 'sliding_attention' or 'full_attention', not {}",
                  types.size(), item.dump());
    }
  }
  return types;
}

// An integer or an array of them; null and absence give none.
Result<std::vector<TokenId>> parse_token_ids(const Json& object, std::string_view file) {
  std::vector<TokenId> ids;
  const Json* value = object.find("eos_token_id");
  if (value == nullptr || value->is_null()) return ids;
  const auto add = [&](const Json& item) {
    if (!item.is_int() || item.as_int() < 0 || item.as_int() > kVocabMax) return false;
    ids.push_back(static_cast<TokenId>(item.as_int()));
    return true;
  };
  bool ok = true;
  if (value->is_array()) {
    for (const Json& item : value->items()) ok = ok && add(item);
  } else {
    ok = add(*value);
  }
  if (!ok) return fail(Code::kInvalid, "{}: eos_token_id must be a token id or an array of them", file);
  return ids;
}

}  // namespace

std::optional<std::string> wrong_combination(const ModelConfig& config) {
  if (config.head_dim % 32 != 0)
    return fmt::format("head_dim must be a multiple of 32 (32, 64, 128), not {}", config.head_dim);
  if (config.heads % config.kv_heads != 0)
    return fmt::format("num_key_value_heads ({}) must divide num_attention_heads ({})", config.kv_heads, config.heads);
  if (config.experts_per_token > config.experts)
    return fmt::format("num_experts_per_tok ({}) exceeds num_local_experts ({})", config.experts_per_token,
                       config.experts);
  return std::nullopt;
}

Result<ModelConfig> parse_model_config(const Json& json) {
  if (!json.is_object()) return fail(Code::kInvalid, "config.json must hold a JSON object");
  const auto model_type = json.get_string("model_type");
  if (model_type && *model_type != "gpt_oss") {
    return fail(Code::kUnsupported,
                "config.json: model_type '{}' is not supported; this engine runs 'gpt_oss'", *model_type);
  }
  FieldReader fields(json, "");
  ModelConfig config;
  config.layers = fields.integer("num_hidden_layers", 1, kLayersMax);
  config.hidden = fields.integer("hidden_size", 1, kWidthMax);
  config.intermediate = fields.integer("intermediate_size", 1, kWidthMax);
  config.head_dim = fields.integer("head_dim", 1, kHeadDimMax, 64);
  config.heads = fields.integer("num_attention_heads", 1, kHeadsMax);
  config.kv_heads = fields.integer("num_key_value_heads", 1, kHeadsMax);
  config.experts = fields.integer("num_local_experts", 1, kExpertsMax);
  config.experts_per_token = fields.present("num_experts_per_tok")
                                 ? fields.integer("num_experts_per_tok", 1, kExpertsMax)
                                 : fields.integer("experts_per_token", 1, kExpertsMax, 4);
  config.vocab = fields.integer("vocab_size", 1, kVocabMax);
  config.sliding_window = fields.integer("sliding_window", 1, kPositionsMax, 128);
  config.positions_max = fields.integer("max_position_embeddings", 1, kPositionsMax, 131072);
  config.norm_epsilon = static_cast<float>(fields.number("rms_norm_eps", 0, 1, 1e-5));
  config.swiglu_limit = static_cast<float>(fields.number("swiglu_limit", 0, 1e6, 7.0));
  config.attention_bias = fields.boolean("attention_bias", true);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  const double theta = fields.number("rope_theta", 1.000001, 1e12, 150000);
  if (fields.error()) return std::unexpected(*fields.error());
  if (const auto wrong = wrong_combination(config)) return fail(Code::kInvalid, "config.json: {}", *wrong);
  CAPSTAN_TRY(config.rope, parse_rope(json, theta));
  CAPSTAN_TRY(config.layer_types, parse_layer_types(json, config.layers));
  CAPSTAN_TRY(config.eos_token_ids, parse_token_ids(json, "config.json"));
  return config;
}

Result<ModelConfig> read_model_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    return fail(Code::kNotFound,
                "{} is no directory; a model is a directory with config.json and model.safetensors",
                directory.string());
  }
  if (!std::filesystem::exists(path, ignored)) {
    return fail(Code::kNotFound, "{} has no config.json; a model is a directory in Hugging Face's layout",
                directory.string());
  }
  CAPSTAN_TRY(const std::string text, read_file(path));
  auto json = Json::parse(text);
  if (!json) return fail(Code::kInvalid, "{}: {}", path.string(), json.error().message);
  auto config = parse_model_config(*json);
  if (!config) return std::unexpected(std::move(config.error()).with_context(directory.string()));
  const auto generation_path = directory / "generation_config.json";
  if (std::filesystem::exists(generation_path, ignored)) {
    CAPSTAN_TRY(const std::string generation_text, read_file(generation_path));
    auto generation = Json::parse(generation_text);
    if (!generation)
      return fail(Code::kInvalid, "{}: {}", generation_path.string(), generation.error().message);
    CAPSTAN_TRY(auto ids, parse_token_ids(*generation, generation_path.string()));
    if (!ids.empty()) config->eos_token_ids = std::move(ids);
  }
  return config;
}

RopeFrequencies rope_frequencies(const RopeConfig& rope, int head_dim) {
  const int half = head_dim / 2;
  RopeFrequencies result;
  result.inverse.resize(half);
  for (int i = 0; i < half; ++i) result.inverse[i] = std::pow(rope.theta, -2.0 * i / head_dim);
  if (!rope.yarn) return result;
  const YarnScaling& yarn = rope.scaling;
  // The (fractional) pair index whose wavelength fits `rotations` times into the original context.
  const auto dimension = [&](double rotations) {
    return half * std::log(yarn.original_positions / (rotations * 2 * std::numbers::pi)) /
           std::log(rope.theta);
  };
  double low = dimension(yarn.beta_fast);
  double high = dimension(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_dim - 1.0);
  if (high <= low) high = low + 0.001;
  for (int i = 0; i < half; ++i) {
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    result.inverse[i] = result.inverse[i] * (1 - ramp) + result.inverse[i] / yarn.factor * ramp;
  }
  result.concentration =
      yarn.attention_factor > 0 ? yarn.attention_factor : 0.1 * std::log(yarn.factor) + 1.0;
  return result;
}

}  // namespace capstan::engine

// How it works: one function per section names its keys and their ranges, for reading; to_json names them
// again, for writing. config_test checks that the two agree: what to_yaml writes is read back to the same
// JSON.
#include "trainer/config.h"

#include <algorithm>

#include "base/file.h"
#include "trainer/config_tree.h"

namespace capstan::trainer {
namespace {

constexpr std::int64_t kCountMax = std::int64_t{1} << 40;

template <class Integer>
void read_integer(ConfigReader& reader, std::string_view key, Integer& out, std::int64_t low,
                  std::int64_t high) {
  auto value = static_cast<std::int64_t>(out);
  reader.integer(key, value, low, high);
  out = static_cast<Integer>(value);
}

void read_model(ConfigReader& r, ModelConfig& m) {
  read_integer(r, "layers", m.layers, 1, 1024);
  read_integer(r, "hidden", m.hidden, 2, 65536);
  read_integer(r, "intermediate", m.intermediate, 1, 65536);
  read_integer(r, "heads", m.heads, 1, 1024);
  read_integer(r, "kv_heads", m.kv_heads, 1, 1024);
  read_integer(r, "head_dim", m.head_dim, 2, 1024);
  read_integer(r, "experts", m.experts, 1, 4096);
  read_integer(r, "experts_per_token", m.experts_per_token, 1, 4096);
  read_integer(r, "vocab", m.vocab, 2, 1 << 20);
  read_integer(r, "sliding_window", m.sliding_window, 1, 1 << 20);
  r.number("rope_theta", m.rope_theta, 1, 1e12);
  r.number("yarn_factor", m.yarn_factor, 0, 1e4);
  r.number("beta_fast", m.beta_fast, 0, 1e6);
  r.number("beta_slow", m.beta_slow, 0, 1e6);
  read_integer(r, "original_context", m.original_context, 1, 1 << 24);
  r.boolean("yarn_truncate", m.yarn_truncate);
  r.number("swiglu_limit", m.swiglu_limit, 0, 1e6);
  r.number("rms_eps", m.rms_eps, 0, 1);
  read_integer(r, "context_max", m.context_max, 2, 1 << 24);
  if (m.heads % m.kv_heads != 0) {
    r.problem("kv_heads", fmt::format("= {} must divide model.heads = {}", m.kv_heads, m.heads));
  }
  if (m.head_dim % 2 != 0) r.problem("head_dim", fmt::format("= {} must be even", m.head_dim));
  if (m.experts_per_token > m.experts) {
    r.problem("experts_per_token",
              fmt::format("= {} is more than model.experts = {}", m.experts_per_token, m.experts));
  }
}

void read_data(ConfigReader& r, DataConfig& d, const std::filesystem::path& folder) {
  r.choice("kind", d.kind, {"abacus", "jsonl"});
  read_integer(r, "seed", d.seed, 0, INT64_MAX);
  std::string path = d.path.string();
  r.text("path", path);
  d.path = path;
  if (!path.empty() && d.path.is_relative()) d.path = (folder / d.path).lexically_normal();
  r.integer("tokens_max", d.tokens_max, 2, 1 << 24);
  r.integer("held_out", d.held_out, 0, kCountMax);
  r.weights("mixture", d.mixture);
  if (d.kind == "jsonl" && d.path.empty()) r.problem("path", "is needed by kind jsonl");
  if (d.kind == "abacus" && r.has("path")) r.problem("path", "has no meaning for kind abacus");
  if (d.kind != "abacus" && !d.mixture.empty()) r.problem("mixture", "has a meaning for kind abacus only");
}

void read_optimizer(ConfigReader& r, TrainConfig& c) {
  r.number("learning_rate", c.learning_rate, 0, 10);
  read_integer(r, "warmup_steps", c.warmup_steps, 0, kCountMax);
  r.number("min_ratio", c.min_ratio, 0, 1);
  double betas[2] = {c.optimizer.beta1, c.optimizer.beta2};
  r.numbers("betas", betas, 0, 0.999999);
  c.optimizer.beta1 = betas[0];
  c.optimizer.beta2 = betas[1];
  r.number("epsilon", c.optimizer.epsilon, 1e-30, 1);
  r.number("weight_decay", c.optimizer.weight_decay, 0, 10);
  r.number("clip_norm", c.clip_norm, 0, 1e9);
}

void read_export(ConfigReader& r, TrainConfig& c) {
  std::string type = c.export_type == ExportType::kBf16 ? "bf16" : "mxfp4";
  r.choice("dtype", type, {"bf16", "mxfp4"});
  c.export_type = type == "bf16" ? ExportType::kBf16 : ExportType::kMxfp4;
  r.boolean("at_checkpoints", c.export_at_checkpoints);
  r.integer("eos_token_id", c.eos_token_id, -1, 1 << 20);
  r.integer("pad_token_id", c.pad_token_id, -1, 1 << 20);
}

void check_whole(ConfigReader& r, const TrainConfig& c) {
  if (!r.has("data"))
    r.problem("data", "is missing: say where the samples come from (data.kind: abacus | jsonl)");
  if (c.export_type == ExportType::kMxfp4 && (c.model.hidden % 32 != 0 || c.model.intermediate % 32 != 0)) {
    r.problem("export", "to mxfp4 needs model.hidden and model.intermediate in multiples of 32");
  }
}

void read_config(ConfigReader& r, TrainConfig& c, const std::filesystem::path& folder) {
  r.section("model", [&](ConfigReader& section) { read_model(section, c.model); });
  std::string precision = c.precision == Precision::kBf16 ? "bf16" : "f32";
  r.choice("precision", precision, {"f32", "bf16"});
  c.precision = precision == "bf16" ? Precision::kBf16 : Precision::kF32;
  r.section("data", [&](ConfigReader& section) { read_data(section, c.data, folder); });
  read_integer(r, "seed", c.seed, 0, INT64_MAX);
  read_integer(r, "steps", c.steps, 1, kCountMax);
  read_integer(r, "batch_tokens", c.batch_tokens, 1, 1 << 30);
  r.number("aux_loss", c.model.aux_loss_coefficient, 0, 1000);
  r.section("optimizer", [&](ConfigReader& section) { read_optimizer(section, c); });
  r.section("checkpoint", [&](ConfigReader& section) {
    read_integer(section, "every_steps", c.checkpoint_every_steps, 0, kCountMax);
    read_integer(section, "keep", c.checkpoint_keep, 1, 10'000);
  });
  r.section("evaluate", [&](ConfigReader& section) {
    read_integer(section, "every_steps", c.evaluate_every_steps, 0, kCountMax);
    read_integer(section, "samples", c.evaluate_samples, 1, 1'000'000);
  });
  read_integer(r, "log_every_steps", c.log_every_steps, 1, kCountMax);
  read_integer(r, "gang_timeout_s", c.gang_timeout_s, 1, 86'400);
  r.section("export", [&](ConfigReader& section) { read_export(section, c); });
  check_whole(r, c);
  r.finish();
}

Json model_json(const ModelConfig& m) {
  return Json::object({{"layers", m.layers},
                       {"hidden", m.hidden},
                       {"intermediate", m.intermediate},
                       {"heads", m.heads},
                       {"kv_heads", m.kv_heads},
                       {"head_dim", m.head_dim},
                       {"experts", m.experts},
                       {"experts_per_token", m.experts_per_token},
                       {"vocab", m.vocab},
                       {"sliding_window", m.sliding_window},
                       {"rope_theta", m.rope_theta},
                       {"yarn_factor", m.yarn_factor},
                       {"beta_fast", m.beta_fast},
                       {"beta_slow", m.beta_slow},
                       {"original_context", m.original_context},
                       {"yarn_truncate", m.yarn_truncate},
                       {"swiglu_limit", m.swiglu_limit},
                       {"rms_eps", m.rms_eps},
                       {"context_max", m.context_max}});
}

Json data_json(const DataConfig& d) {
  Json data = Json::object(
      {{"kind", d.kind}, {"seed", d.seed}, {"tokens_max", d.tokens_max}, {"held_out", d.held_out}});
  if (!d.path.empty()) data["path"] = d.path.string();
  for (const auto& [kind, weight] : d.mixture) data["mixture"][kind] = weight;
  return data;
}

void emit_yaml(const Json& object, std::string indent, std::string& out) {
  for (const auto& [key, value] : object.members()) {
    out += indent + key + ":";
    if (value.is_object()) {
      out += "\n";
      emit_yaml(value, indent + "  ", out);
    } else {
      out += " " + value.dump() + "\n";
    }
  }
}

void collect_differences(const Json& a, const Json& b, const std::string& path,
                         std::vector<std::string>& out) {
  if (!a.is_object() || !b.is_object()) {
    if (!(a == b)) out.push_back(path);
    return;
  }
  const auto name = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  for (const auto& [key, value] : a.members()) {
    const Json* other = b.find(key);
    collect_differences(value, other != nullptr ? *other : Json(), name(key), out);
  }
  for (const auto& [key, value] : b.members()) {
    if (!a.contains(key)) out.push_back(name(key));
  }
}

}  // namespace

ScheduleConfig TrainConfig::schedule() const {
  return {.peak = learning_rate, .warmup_steps = warmup_steps, .steps = steps, .min_ratio = min_ratio};
}

Result<TrainConfig> parse_train_config(std::string_view text, std::string_view name,
                                       const std::filesystem::path& folder,
                                       std::span<const std::string> overrides) {
  CAPSTAN_TRY(ConfigNode root, parse_config(text, name));
  for (const std::string& assignment : overrides) CAPSTAN_CHECK(override_value(root, assignment));
  TrainConfig config;
  std::vector<std::string> problems;
  ConfigReader reader(root, "", problems);
  read_config(reader, config, folder);
  if (!problems.empty()) return fail(Code::kInvalid, "{}", fmt::join(problems, "\n"));
  return config;
}

Result<TrainConfig> load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
  CAPSTAN_TRY(const std::string text, read_file(file, kConfigBytesMax));
  return parse_train_config(text, file.string(), std::filesystem::absolute(file).parent_path(), overrides);
}

Json to_json(const TrainConfig& c) {
  return Json::object(
      {{"model", model_json(c.model)},
       {"precision", c.precision == Precision::kBf16 ? "bf16" : "f32"},
       {"data", data_json(c.data)},
       {"seed", c.seed},
       {"steps", c.steps},
       {"batch_tokens", c.batch_tokens},
       {"aux_loss", c.model.aux_loss_coefficient},
       {"optimizer", Json::object({{"learning_rate", c.learning_rate},
                                   {"warmup_steps", c.warmup_steps},
                                   {"min_ratio", c.min_ratio},
                                   {"betas", Json::array({Json(c.optimizer.beta1), Json(c.optimizer.beta2)})},
                                   {"epsilon", c.optimizer.epsilon},
                                   {"weight_decay", c.optimizer.weight_decay},
                                   {"clip_norm", c.clip_norm}})},
       {"checkpoint", Json::object({{"every_steps", c.checkpoint_every_steps}, {"keep", c.checkpoint_keep}})},
       {"evaluate", Json::object({{"every_steps", c.evaluate_every_steps}, {"samples", c.evaluate_samples}})},
       {"log_every_steps", c.log_every_steps},
       {"gang_timeout_s", c.gang_timeout_s},
       {"export", Json::object({{"dtype", c.export_type == ExportType::kBf16 ? "bf16" : "mxfp4"},
                                {"at_checkpoints", c.export_at_checkpoints},
                                {"eos_token_id", c.eos_token_id},
                                {"pad_token_id", c.pad_token_id}})}});
}

std::string to_yaml(const TrainConfig& config) {
  std::string text;
  emit_yaml(to_json(config), "", text);
  return text;
}

Result<TrainConfig> config_from_json(const Json& json) {
  if (!json.is_object()) return fail(Code::kCorrupt, "the configuration is no object");
  std::string text;
  emit_yaml(json, "", text);
  return parse_train_config(text, "configuration of the checkpoint", "/", {});
}

std::vector<std::string> differing_keys(const Json& a, const Json& b) {
  std::vector<std::string> keys;
  collect_differences(a, b, "", keys);
  return keys;
}

}  // namespace capstan::trainer

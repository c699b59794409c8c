// TrainConfig: everything that determines a run, read strictly from YAML.
//
//   CAPSTAN_TRY(TrainConfig config, load_config("train.yaml", {"steps=100", "model.layers=2"}));
//
// The file has the sections of examples/abacus/train.yaml. Unknown keys, duplicates and values out of range
// are errors with FILE:LINE:COLUMN, all of them at once, and unknown keys name the nearest known one. Where
// keys are left out, the defaults below hold. `data.path` is relative to the file's folder. Failure:
// kNotFound; kInvalid with one problem a line.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/json.h"
#include "base/result.h"
#include "trainer/adamw.h"
#include "trainer/data.h"
#include "trainer/model/model.h"
#include "trainer/schedule.h"

namespace capstan::trainer {

enum class ExportType { kBf16, kMxfp4 };

struct TrainConfig {
  ModelConfig model;                       // model:  (its aux_loss_coefficient is the key `aux_loss`)
  Precision precision = Precision::kBf16;  // precision: f32 | bf16
  DataConfig data;                         // data: kind, seed, path, tokens_max, held_out, mixture
  std::uint64_t seed = 1;                  // of the initial weights
  std::uint64_t steps = 1000;
  std::uint64_t batch_tokens = 8192;  // of the whole gang, whatever its size

  double learning_rate = 1e-3;  // optimizer: learning_rate, warmup_steps, min_ratio, betas, epsilon, …
  std::uint64_t warmup_steps = 100;
  double min_ratio = 0.1;
  AdamWConfig optimizer;
  double clip_norm = 1.0;

  std::uint64_t checkpoint_every_steps = 200;  // checkpoint: every_steps, keep
  int checkpoint_keep = 3;
  std::uint64_t evaluate_every_steps = 0;  // evaluate: every_steps, samples; 0 = never
  std::uint64_t evaluate_samples = 256;
  std::uint64_t log_every_steps = 10;
  int gang_timeout_s = 60;  // longest silence of a peer

  ExportType export_type = ExportType::kBf16;  // export: dtype, at_checkpoints, eos_token_id, pad_token_id
  bool export_at_checkpoints = false;
  std::int64_t eos_token_id = -1;  // -1 = not written
  std::int64_t pad_token_id = -1;

  ScheduleConfig schedule() const;
};

// `overrides` are "key=value" with dots for sections.
Result<TrainConfig> load_config(const std::filesystem::path& file, std::span<const std::string> overrides);
// The same from a text; `name` stands in messages, relative paths are taken from `folder`.
Result<TrainConfig> parse_train_config(std::string_view text, std::string_view name,
                                       const std::filesystem::path& folder,
                                       std::span<const std::string> overrides);

// Canonical: every key with its value, in one order. Equal configurations give equal JSON.
Json to_json(const TrainConfig& config);
// The same as YAML that load_config reads back to an equal configuration.
std::string to_yaml(const TrainConfig& config);
// From to_json's form, as a checkpoint's manifest holds it.
Result<TrainConfig> config_from_json(const Json& json);

// The dotted names of the keys in which two canonical configurations differ.
std::vector<std::string> differing_keys(const Json& a, const Json& b);

}  // namespace capstan::trainer

// Export: the trained parameters as a Hugging-Face-style directory that Capstan's engine and transformers
// load.
//
//   DIR/config.json         every field of gpt-oss's
//   DIR/model.safetensors   names and shapes of the gpt-oss checkpoint
//   DIR/tokenizer.json …    what the data source writes (DataSource::write_tokenizer)
//
// Orientation of the experts. Inside the trainer they are [E, out, in]. As bf16 they are written as
// transformers holds them, input-major: mlp.experts.gate_up_proj [E, hidden, 2 * intermediate], down_proj [E,
// intermediate, hidden] (y = x W). As MXFP4 they are output-major: gate_up_proj_blocks [E, 2 * intermediate,
// hidden / 32, 16] with _scales, as in OpenAI's file. Everything else is bf16 either way. See
// docs/formats/checkpoint.md. The directory is replaced as a whole: written beside itself, then renamed.
// Failure: kInvalid (mxfp4 with dimensions that are no multiples of 32), kConflict, kIo, kExhausted. Threads:
// any.
#pragma once

#include <filesystem>
#include <span>

#include "trainer/config.h"
#include "trainer/data.h"

namespace capstan::trainer {

// `source` may be null: then no tokenizer is written.
Result<void> export_model(const std::filesystem::path& directory, const TrainConfig& config,
                          std::span<const float> parameters, const DataSource* source);

// The config.json alone.
Json model_config_json(const TrainConfig& config);

}  // namespace capstan::trainer

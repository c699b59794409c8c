// A model directory -> a ServedModel on this machine's CPU.
//
// Reads config.json, the weights, tokenizer.json, and the optional capstan.json and generation_config.json.
// Failure: as Model::load and Tokenizer::load; kUnsupported if the tokenizer has no harmony tokens; kInvalid
// if the context wanted is longer than the model's.
#pragma once

#include <filesystem>
#include <string>

#include "engine/server/engine_server.h"

namespace capstan::engine {

struct LoadOptions {
  std::filesystem::path directory = {};
  std::string name = {};
  int context = 0;         // 0: the model's own
  int threads = 0;         // 0: all
  int sequences_max = 32;  // decoded together
  int queue_max = 256;     // waiting; more are answered 429
  std::string arithmetic = "default";  // see model_options
};

Result<ServedModel> load_served_model(const LoadOptions& options, const EngineServer::Progress& progress);

}  // namespace capstan::engine

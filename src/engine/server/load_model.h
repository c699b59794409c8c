// A model (a directory of safetensors, or a GGUF file) -> a ServedModel on this machine's CPU.
//
// Reads the configuration, the weights, the tokenizer, and the optional capstan.json and generation_config.json beside
// them.
// Failure: as Model::load and Tokenizer::load; kUnsupported if the tokenizer has no harmony tokens; kInvalid
// if the context wanted is longer than the model's; kExhausted if it does not fit into memory (says how much it needs).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "engine/server/engine_server.h"

namespace capstan::engine {

struct LoadOptions {
  std::filesystem::path model = {};  // a directory or a .gguf file
  std::string name = {};
  int context = 0;         // 0: the model's own, or what memory allows
  int threads = 0;         // 0: all
  int sequences_max = 32;  // decoded together
  int queue_max = 256;     // waiting; more are answered 429
  std::uint64_t kv_bytes = 0;  // of keys and values, cached ones included; 0: half of what the weights leave
  bool prefix_cache = true;
  int speculation_tokens = 4;  // guessed ahead; 0: none
  std::string arithmetic = "default";  // see model_options
  std::optional<bool> yarn_truncate = {};
  std::uint64_t memory_available = 0;  // bytes; 0: what the system says
};

Result<ServedModel> load_served_model(const LoadOptions& options, const EngineServer::Progress& progress);

}  // namespace capstan::engine

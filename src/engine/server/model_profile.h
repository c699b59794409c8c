// How one model wants to be spoken to: what its directory says beside the weights.
//
//   capstan.json            {"harmony": {"system_message": "full" | "omit"}, "builtin_tools": ["python"]}
//   (ours) generation_config.json  {"do_sample", "temperature", "top_p", "eos_token_id"} (transformers')
// Both files may be absent. Unknown members are ignored; a known one of another kind is kInvalid.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "harmony/conversation.h"

namespace capstan::engine {

struct ModelProfile {
  harmony::SystemMessage system_message = harmony::SystemMessage::kFull;
  bool python = false;       // trained with harmony's built-in python tool
  double temperature = 1.0;  // when a request gives none; 0 where do_sample is false
  double top_p = 1.0;
};

Result<ModelProfile> read_model_profile(const std::filesystem::path& directory);

}  // namespace capstan::engine

// Two small JSON files, each optional.
#include "engine/server/model_profile.h"

#include "base/file.h"
#include "base/json.h"

namespace capstan::engine {
namespace {

// An empty object if the file is absent.
Result<Json> read_optional(const std::filesystem::path& path) {
  auto text = read_file(path);
  if (!text && text.error().code == Code::kNotFound) return Json::object();
  if (!text) return std::unexpected(std::move(text.error()));
  auto json = Json::parse(*text);
  if (!json) return std::unexpected(std::move(json.error()).with_context(path.string()));
  if (!json->is_object()) return fail(Code::kInvalid, "{}: not a JSON object", path.string());
  return json;
}

Result<double> number_or(const Json& json, std::string_view key, double otherwise, double max,
                         const std::filesystem::path& path) {
  const Json* value = json.find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_number() || value->as_double() < 0 || value->as_double() > max) {
    return fail(Code::kInvalid, "{}: {} is not a number from 0 to {}", path.string(), key, max);
  }
  return value->as_double();
}

}  // namespace

Result<ModelProfile> read_model_profile(const std::filesystem::path& directory) {
  ModelProfile profile;
  const auto capstan_path = directory / "capstan.json";
  CAPSTAN_TRY(const Json capstan, read_optional(capstan_path));
  if (const Json* harmony = capstan.find("harmony")) {
    const std::string mode = harmony->get_string("system_message").value_or("full");
    if (mode != "full" && mode != "omit") {
      return fail(Code::kInvalid, "{}: harmony.system_message is \"{}\", not \"full\" or \"omit\"",
                  capstan_path.string(), mode);
    }
    if (mode == "omit") profile.system_message = harmony::SystemMessage::kOmit;
  }
  if (const Json* tools = capstan.find("builtin_tools"); tools != nullptr && tools->is_array()) {
    for (const Json& tool : tools->items()) {
      if (tool != Json("python"))
        return fail(Code::kInvalid, "{}: builtin_tools knows only \"python\"", capstan_path.string());
      profile.python = true;
    }
  }
  const auto generation_path = directory / "generation_config.json";
  CAPSTAN_TRY(const Json generation, read_optional(generation_path));
  CAPSTAN_TRY(profile.temperature, number_or(generation, "temperature", 1.0, 2.0, generation_path));
  CAPSTAN_TRY(profile.top_p, number_or(generation, "top_p", 1.0, 1.0, generation_path));
  if (generation.get_bool("do_sample") == false) profile.temperature = 0;
  return profile;
}

}  // namespace capstan::engine

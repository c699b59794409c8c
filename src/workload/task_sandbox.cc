// How: one list of members serves both directions.
#include "workload/task_sandbox.h"

#include <array>
#include <utility>

namespace capstan::workload {
namespace {

using Texts = std::array<std::pair<const char*, std::string TaskSandbox::*>, 6>;
using Numbers = std::array<std::pair<const char*, std::int64_t TaskSandbox::*>, 7>;

constexpr Texts kTexts = {{{"lane", &TaskSandbox::lane},
                           {"code", &TaskSandbox::code},
                           {"template", &TaskSandbox::template_root},
                           {"network", &TaskSandbox::network},
                           {"input", &TaskSandbox::input},
                           {"collect", &TaskSandbox::collect}}};
constexpr Numbers kNumbers = {{{"batch", &TaskSandbox::batch},
                               {"chunk", &TaskSandbox::chunk},
                               {"pids", &TaskSandbox::pids},
                               {"disk_bytes", &TaskSandbox::disk_bytes},
                               {"files", &TaskSandbox::files},
                               {"cpu_time_ms", &TaskSandbox::cpu_time_ms},
                               {"output_bytes", &TaskSandbox::output_bytes}}};

}  // namespace

Json to_json(const TaskSandbox& sandbox, bool all) {
  const TaskSandbox base;
  Json json = Json::object();
  for (const auto& [key, member] : kTexts) {
    if (all || sandbox.*member != base.*member) json[key] = sandbox.*member;
  }
  for (const auto& [key, member] : kNumbers) {
    if (all || sandbox.*member != base.*member) json[key] = sandbox.*member;
  }
  return json;
}

Result<TaskSandbox> task_sandbox_from_json(const Json& json) {
  if (!json.is_object()) return fail(Code::kCorrupt, "'sandbox' must be an object, not {}", json.type_name());
  TaskSandbox sandbox;
  for (const auto& [key, member] : kTexts) {
    const Json* value = json.find(key);
    if (value == nullptr) continue;
    if (!value->is_string()) return fail(Code::kCorrupt, "'sandbox.{}' must be a string", key);
    sandbox.*member = value->as_string();
  }
  for (const auto& [key, member] : kNumbers) {
    const Json* value = json.find(key);
    if (value == nullptr) continue;
    if (!value->is_int() || value->as_int() < 0)
      return fail(Code::kCorrupt, "'sandbox.{}' must be an integer of at least 0", key);
    sandbox.*member = value->as_int();
  }
  if (sandbox.batch < 1 || sandbox.chunk < sandbox.batch || sandbox.chunk > kChunkMax)
    return fail(Code::kCorrupt, "'sandbox' has batch {} and chunk {}", sandbox.batch, sandbox.chunk);
  return sandbox;
}

}  // namespace capstan::workload

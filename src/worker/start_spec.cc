#include "worker/start_spec.h"

#include <map>

namespace capstan::worker {
namespace {

bool has_nul(const std::string& text) { return text.find('\0') != text.npos; }

Result<std::vector<std::string>> command_from(const Json& effect) {
  const Json* command = effect.find("command");
  if (command == nullptr || !command->is_array() || command->size() == 0)
    return fail(Code::kInvalid, "no command");
  std::vector<std::string> arguments;
  for (const Json& argument : command->items()) {
    if (!argument.is_string() || has_nul(argument.as_string())) {
      return fail(Code::kInvalid, "command must be strings without NUL bytes");
    }
    arguments.push_back(argument.as_string());
  }
  if (arguments[0].empty()) return fail(Code::kInvalid, "the command's program is empty");
  return arguments;
}

Result<std::vector<std::pair<std::string, std::string>>> environment_from(const Json& effect) {
  std::vector<std::pair<std::string, std::string>> variables;
  const Json* env = effect.find("env");
  if (env == nullptr || !env->is_object()) return variables;
  for (const auto& [name, value] : env->members()) {
    if (name.empty() || has_nul(name) || name.find('=') != name.npos || !value.is_string() ||
        has_nul(value.as_string())) {
      return fail(Code::kInvalid, "environment variable '{}' cannot be set", name);
    }
    variables.emplace_back(name, value.as_string());
  }
  return variables;
}

void replace_all(std::string& text, std::string_view what, const std::string& with) {
  for (std::size_t at = 0; (at = text.find(what, at)) != text.npos; at += with.size())
    text.replace(at, what.size(), with);
}

}  // namespace

Result<StartSpec> StartSpec::from_json(const Json& effect) {
  StartSpec spec;
  CAPSTAN_TRY(spec.id, RankId::from_json(effect));
  spec.name = effect.get_string("name").value_or("");
  spec.kind = effect.get_string("kind").value_or("job");
  spec.user = effect.get_string("user").value_or("");
  CAPSTAN_TRY(spec.command, command_from(effect));
  CAPSTAN_TRY(spec.env, environment_from(effect));
  spec.workdir = effect.get_string("workdir").value_or("");
  if (!spec.workdir.empty() && spec.workdir[0] != '/')
    return fail(Code::kInvalid, "workdir {} is not absolute", spec.workdir);
  if (has_nul(spec.workdir)) return fail(Code::kInvalid, "workdir holds a NUL byte");
  if (const Json* resources = effect.find("resources")) {
    spec.milli_cpus = resources->get_int("milli_cpus").value_or(0);
    spec.memory_bytes = resources->get_int("memory_bytes").value_or(0);
    spec.gpus = resources->get_int("gpus").value_or(0);
  }
  spec.grace_ms = effect.get_int("grace_ms").value_or(spec.grace_ms);
  spec.timeout_ms = effect.get_int("timeout_ms").value_or(0);
  spec.port = effect.get_int("port").value_or(0);
  if (spec.port < 0 || spec.port > 65535)
    return fail(Code::kInvalid, "port {} is outside 0..65535", spec.port);
  spec.log_bytes_max = effect.get_int("log_bytes_max").value_or(spec.log_bytes_max);
  if (const Json* health = effect.find("health"); health != nullptr && health->is_object()) {
    HealthSpec check;
    check.path = health->get_string("path").value_or("/health");
    check.interval_ms =
        std::max<std::int64_t>(health->get_int("interval_ms").value_or(check.interval_ms), 10);
    check.timeout_ms = std::max<std::int64_t>(health->get_int("timeout_ms").value_or(check.timeout_ms), 10);
    check.start_timeout_ms = health->get_int("start_timeout_ms").value_or(check.start_timeout_ms);
    spec.health = check;
  }
  return spec;
}

std::string expand(std::string text, const HostPaths& paths) {
  replace_all(text, "${CAPSTAN_SHARE}", paths.share);
  replace_all(text, "${CAPSTAN_JOB_DIR}", paths.job_directory);
  return text;
}

std::vector<std::string> rank_environment(const StartSpec& spec, const HostPaths& paths,
                                          const std::string& user, const std::string& home,
                                          const std::string& mark) {
  std::map<std::string, std::string> variables = {
      {"PATH", (paths.bin.empty() ? "" : paths.bin + ":") + "/usr/local/bin:/usr/bin:/bin"},
      {"HOME", home},
      {"USER", user},
      {"LANG", "C.UTF-8"},
      {"TMPDIR", "/tmp"},
  };
  for (const auto& [name, value] : spec.env) variables[name] = expand(value, paths);
  variables["CAPSTAN_JOB_DIR"] = paths.job_directory;
  variables["CAPSTAN_SHARE"] = paths.share;
  variables["CAPSTAN_RANK_MARK"] = mark;
  std::vector<std::string> out;
  for (const auto& [name, value] : variables) out.push_back(name + "=" + value);
  return out;
}

}  // namespace capstan::worker

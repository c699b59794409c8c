#include <algorithm>
#include <array>

#include "workload/spec.h"

namespace capstan::workload {
namespace {

constexpr std::array<std::string_view, 3> kKindNames{"job", "service", "tasks"};

Json pairs_to_json(const Spec::Pairs& pairs) {
  Json out = Json::object();
  for (const auto& [key, value] : pairs) out.members().emplace_back(key, value);
  return out;
}

Result<Spec::Pairs> pairs_from_json(const Json* json) {
  Spec::Pairs out;
  if (json == nullptr || !json->is_object()) return fail(Code::kCorrupt, "stored spec lacks a mapping");
  for (const auto& [key, value] : json->members()) {
    if (!value.is_string()) return fail(Code::kCorrupt, "stored spec: '{}' is no string", key);
    out.emplace_back(key, value.as_string());
  }
  return out;
}

// Reads members that must be there; remembers the first that was not.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}
  std::int64_t integer(std::string_view key) {
    const auto value = json_.get_int(key);
    if (!value) miss(key);
    return value.value_or(0);
  }
  std::string text(std::string_view key) {
    auto value = json_.get_string(key);
    if (!value) miss(key);
    return std::move(value).value_or("");
  }
  const Json& member(std::string_view key) {
    const Json* value = json_.find(key);
    if (value == nullptr) miss(key);
    static const Json kEmpty = Json::object();
    return value != nullptr ? *value : kEmpty;
  }
  void miss(std::string_view key) {
    if (missing_.empty()) missing_ = key;
  }
  const std::string& missing() const { return missing_; }

 private:
  const Json& json_;
  std::string missing_;
};

Json restarts_to_json(const RestartPolicy& restarts) {
  return Json::object({{"budget", restarts.budget},
                       {"backoff_ms", restarts.backoff_ms},
                       {"backoff_max_ms", restarts.backoff_max_ms}});
}

}  // namespace

std::string_view kind_name(Kind kind) { return kKindNames[static_cast<std::size_t>(kind)]; }

Json to_json(const Spec& spec) {
  Json::Array command(spec.command.begin(), spec.command.end());
  Json out = Json::object({{"kind", kind_name(spec.kind)},
                           {"name", spec.name},
                           {"tenant", spec.tenant},
                           {"priority", spec.priority},
                           {"labels", pairs_to_json(spec.labels)},
                           {"user", spec.user},
                           {"command", std::move(command)},
                           {"env", pairs_to_json(spec.env)},
                           {"workdir", spec.workdir},
                           {"resources", Json::object({{"milli_cpus", spec.resources.milli_cpus},
                                                       {"memory_bytes", spec.resources.memory_bytes},
                                                       {"gpus", spec.resources.gpus}})},
                           {"grace_ms", spec.grace_ms},
                           {"restarts", restarts_to_json(spec.restarts)}});
  switch (spec.kind) {
    case Kind::kJob:
      out["ranks"] = spec.ranks;
      out["checkpoint"] = Json::object({{"interval_ms", spec.checkpoint.interval_ms}});
      out["time_limit_ms"] = spec.time_limit_ms;
      break;
    case Kind::kService:
      out["replicas"] = spec.replicas;
      if (spec.engine)
        out["engine"] = Json::object({{"model", spec.engine->model}, {"context", spec.engine->context}});
      out["model_name"] = spec.model_name;
      out["port"] = spec.port;
      if (spec.health) {
        out["health"] = Json::object({{"path", spec.health->path},
                                      {"interval_ms", spec.health->interval_ms},
                                      {"timeout_ms", spec.health->timeout_ms},
                                      {"start_timeout_ms", spec.health->start_timeout_ms}});
      }
      break;
    case Kind::kTasks:
      out["count"] = spec.count;
      out["parallelism"] = spec.parallelism;
      out["retries"] = spec.retries;
      out["timeout_ms"] = spec.timeout_ms;
      break;
  }
  return out;
}

Result<Spec> from_json(const Json& json) {
  Fields fields(json);
  Spec spec;
  const std::string kind = fields.text("kind");
  const auto found = std::find(kKindNames.begin(), kKindNames.end(), kind);
  if (found == kKindNames.end()) return fail(Code::kCorrupt, "stored spec has unknown kind '{}'", kind);
  spec.kind = static_cast<Kind>(found - kKindNames.begin());
  spec.name = fields.text("name");
  spec.tenant = fields.text("tenant");
  spec.priority = fields.integer("priority");
  CAPSTAN_TRY(spec.labels, pairs_from_json(json.find("labels")));
  CAPSTAN_TRY(spec.env, pairs_from_json(json.find("env")));
  spec.user = fields.text("user");
  spec.workdir = fields.text("workdir");
  if (const Json& command = fields.member("command"); command.is_array()) {
    for (const Json& word : command.items()) {
      if (!word.is_string())
        return fail(Code::kCorrupt, "stored spec of '{}': a word of the command is no string", spec.name);
      spec.command.push_back(word.as_string());
    }
  }
  Fields resources(fields.member("resources"));
  spec.resources = {resources.integer("milli_cpus"), resources.integer("memory_bytes"),
                    resources.integer("gpus")};
  spec.grace_ms = fields.integer("grace_ms");
  Fields restarts(fields.member("restarts"));
  spec.restarts = {restarts.integer("budget"), restarts.integer("backoff_ms"),
                   restarts.integer("backoff_max_ms")};
  std::string missing = !resources.missing().empty() ? resources.missing() : restarts.missing();
  if (spec.kind == Kind::kJob) {
    spec.ranks = fields.integer("ranks");
    spec.checkpoint.interval_ms = fields.member("checkpoint").get_int("interval_ms").value_or(0);
    spec.time_limit_ms = fields.integer("time_limit_ms");
  } else if (spec.kind == Kind::kService) {
    spec.replicas = fields.integer("replicas");
    if (const Json* engine = json.find("engine")) {
      Fields members(*engine);
      spec.engine = EngineSpec{members.text("model"), members.integer("context")};
      if (missing.empty()) missing = members.missing();
    }
    spec.model_name = fields.text("model_name");
    spec.port = fields.integer("port");
    if (const Json* health = json.find("health")) {
      Fields members(*health);
      spec.health = HealthCheck{members.text("path"), members.integer("interval_ms"),
                                members.integer("timeout_ms"), members.integer("start_timeout_ms")};
      if (missing.empty()) missing = members.missing();
    }
  } else {
    spec.count = fields.integer("count");
    spec.parallelism = fields.integer("parallelism");
    spec.retries = fields.integer("retries");
    spec.timeout_ms = fields.integer("timeout_ms");
  }
  if (missing.empty()) missing = fields.missing();
  if (!missing.empty()) return fail(Code::kCorrupt, "stored spec of '{}' lacks '{}'", spec.name, missing);
  return spec;
}

}  // namespace capstan::workload

// How: one pass per direction over the same fields in the same order. Writing compares each field with the
// default of its kind; reading starts from those defaults.
#include <algorithm>
#include <array>

#include "workload/spec.h"

namespace capstan::workload {
namespace {

constexpr std::array<std::string_view, 4> kKindNames{"job", "service", "tasks", "sandbox"};

// What an absent field means.
Spec defaults_of(Kind kind) {
  Spec spec;
  spec.kind = kind;
  if (kind != Kind::kJob) spec.placement.required = fleet::Level::kNone;
  if (kind == Kind::kSandbox) spec.restarts.budget = 0;
  return spec;
}
const Spec& shared_defaults(Kind kind) {
  static const std::array<Spec, 4> kDefaults{defaults_of(Kind::kJob), defaults_of(Kind::kService),
                                             defaults_of(Kind::kTasks), defaults_of(Kind::kSandbox)};
  return kDefaults[static_cast<std::size_t>(kind)];
}

// Collects members; those that equal their default only if all are wanted.
class Writer {
 public:
  Writer(Defaults defaults, std::size_t members) : all_(defaults == Defaults::kWritten) {
    members_.reserve(members);
  }
  template <class Value>
  void add(std::string_view key, const Value& value, const Value& default_value) {
    if (all_ || value != default_value) members_.emplace_back(key, json(value));
  }
  void add(std::string_view key, Json value) { members_.emplace_back(key, std::move(value)); }
  // A part of the spec; left out if all its members are.
  void part(std::string_view key, Json value) {
    if (value.size() > 0) members_.emplace_back(key, std::move(value));
  }
  Json take() { return Json(std::move(members_)); }

 private:
  static Json json(std::int64_t value) { return Json(value); }
  static Json json(bool value) { return Json(value); }
  static Json json(const std::string& value) { return Json(value); }
  static Json json(fleet::Level value) { return Json(fleet::level_name(value)); }
  static Json json(const std::vector<std::string>& words) {
    return Json(Json::Array(words.begin(), words.end()));
  }
  static Json json(const Spec::Pairs& pairs) {
    Json::Object out;
    out.reserve(pairs.size());
    for (const auto& [key, value] : pairs) out.emplace_back(key, value);
    return Json(std::move(out));
  }

  bool all_;
  Json::Object members_;
};

Json resources_to_json(const Resources& resources, const Resources& base, Defaults defaults) {
  Writer out(defaults, 4);
  out.add("milli_cpus", resources.milli_cpus, base.milli_cpus);
  out.add("memory_bytes", resources.memory_bytes, base.memory_bytes);
  out.add("gpus", resources.gpus, base.gpus);
  out.add("gpu_milli", resources.gpu_milli, base.gpu_milli);
  return out.take();
}

Json restarts_to_json(const RestartPolicy& restarts, const RestartPolicy& base, Defaults defaults) {
  Writer out(defaults, 3);
  out.add("budget", restarts.budget, base.budget);
  out.add("backoff_ms", restarts.backoff_ms, base.backoff_ms);
  out.add("backoff_max_ms", restarts.backoff_max_ms, base.backoff_max_ms);
  return out.take();
}

Json placement_to_json(const PlacementSpec& placement, const PlacementSpec& base, Defaults defaults) {
  Writer out(defaults, defaults == Defaults::kWritten ? 8 : 3);
  out.add("segment", placement.segment, base.segment);
  out.add("required", placement.required, base.required);
  out.add("preferred", placement.preferred, base.preferred);
  out.add("gpu_model", placement.gpu_model, base.gpu_model);
  out.add("host_class", placement.host_class, base.host_class);
  out.add("cluster", placement.cluster, base.cluster);
  out.add("region", placement.region, base.region);
  out.add("reservation", placement.reservation, base.reservation);
  return out.take();
}

Json helpers_to_json(const HelpersSpec& helpers, Defaults defaults) {
  Writer out(defaults, 3);
  out.add("ranks", Json(helpers.ranks));
  out.part("resources", resources_to_json(helpers.resources, {}, defaults));
  out.add("command", helpers.command, {});
  return out.take();
}

Json health_to_json(const HealthCheck& health) {
  return Json(Json::Object{{"path", health.path},
                           {"interval_ms", health.interval_ms},
                           {"timeout_ms", health.timeout_ms},
                           {"start_timeout_ms", health.start_timeout_ms}});
}

Json autoscale_to_json(const AutoscaleSpec& autoscale) {
  return Json(Json::Object{{"min", autoscale.min},
                           {"max", autoscale.max},
                           {"ttft_ms", autoscale.ttft_ms},
                           {"tpot_ms", autoscale.tpot_ms},
                           {"calm_ms", autoscale.calm_ms}});
}

void write_kind(Writer& out, const Spec& spec, const Spec& base, Defaults defaults) {
  switch (spec.kind) {
    case Kind::kJob:
      out.add("ranks", spec.ranks, base.ranks);
      out.add("ranks_min", spec.ranks_min, base.ranks_min);
      if (spec.helpers) out.add("helpers", helpers_to_json(*spec.helpers, defaults));
      if (defaults == Defaults::kWritten || spec.checkpoint != base.checkpoint)
        out.add("checkpoint", Json(Json::Object{{"interval_ms", spec.checkpoint.interval_ms}}));
      out.add("time_limit_ms", spec.time_limit_ms, base.time_limit_ms);
      break;
    case Kind::kService:
      out.add("replicas", spec.replicas, base.replicas);
      if (spec.autoscale) out.add("autoscale", autoscale_to_json(*spec.autoscale));
      out.add("weight", spec.weight, base.weight);
      if (spec.engine) {
        out.add("engine",
                Json(Json::Object{{"model", spec.engine->model}, {"context", spec.engine->context}}));
      }
      out.add("model_name", spec.model_name, base.model_name);
      out.add("hedge_after_ms", spec.hedge_after_ms, base.hedge_after_ms);
      if (spec.http2) out.add("http2", Json(*spec.http2));
      out.add("port", spec.port, base.port);
      if (spec.health) out.add("health", health_to_json(*spec.health));
      break;
    case Kind::kTasks:
      out.add("count", spec.count, base.count);
      out.add("parallelism", spec.parallelism, base.parallelism);
      out.add("retries", spec.retries, base.retries);
      out.add("timeout_ms", spec.timeout_ms, base.timeout_ms);
      if (spec.sandbox) out.add("sandbox", to_json(*spec.sandbox, defaults == Defaults::kWritten));
      break;
    case Kind::kSandbox:
      out.part("session", to_json(spec.session, defaults == Defaults::kWritten));
      break;
  }
}

// Reads members where they are there; remembers the first that has the wrong type.
class Reader {
 public:
  Reader(const Json& json, std::string_view prefix, std::string& wrong)
      : json_(json), prefix_(prefix), wrong_(wrong) {
    if (!json.is_object()) miss("");
  }
  void read(std::string_view key, std::int64_t& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    if (!value->is_int()) return miss(key);
    out = value->as_int();
  }
  void read(std::string_view key, bool& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    if (!value->is_bool()) return miss(key);
    out = value->as_bool();
  }
  void read(std::string_view key, std::optional<bool>& out) {
    if (json_.contains(key)) read(key, out.emplace());
  }
  void read(std::string_view key, std::string& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return miss(key);
    out = value->as_string();
  }
  void read(std::string_view key, fleet::Level& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    const auto level = value->is_string() ? fleet::parse_level(value->as_string()) : std::nullopt;
    if (!level) return miss(key);
    out = *level;
  }
  void read(std::string_view key, std::vector<std::string>& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    if (!value->is_array()) return miss(key);
    out.reserve(value->size());
    for (const Json& word : value->items()) {
      if (!word.is_string()) return miss(key);
      out.push_back(word.as_string());
    }
  }
  void read(std::string_view key, Spec::Pairs& out) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    if (!value->is_object()) return miss(key);
    out.reserve(value->size());
    for (const auto& [name, item] : value->members()) {
      if (!item.is_string()) return miss(key);
      out.emplace_back(name, item.as_string());
    }
  }
  // A part of the spec: calls `read` with its reader if it is there.
  template <class Read>
  void part(std::string_view key, Read&& read) {
    const Json* value = json_.find(key);
    if (value == nullptr) return;
    Reader reader(*value, key, wrong_);
    read(reader);
  }

 private:
  void miss(std::string_view key) {
    if (wrong_.empty())
      wrong_ = fmt::format("{}{}{}", prefix_, prefix_.empty() || key.empty() ? "" : ".", key);
  }

  const Json& json_;
  std::string_view prefix_;
  std::string& wrong_;
};

void read_resources(Reader& in, Resources& out) {
  in.read("milli_cpus", out.milli_cpus);
  in.read("memory_bytes", out.memory_bytes);
  in.read("gpus", out.gpus);
  in.read("gpu_milli", out.gpu_milli);
}

void read_placement(Reader& in, PlacementSpec& out) {
  in.read("segment", out.segment);
  in.read("required", out.required);
  in.read("preferred", out.preferred);
  in.read("gpu_model", out.gpu_model);
  in.read("host_class", out.host_class);
  in.read("cluster", out.cluster);
  in.read("region", out.region);
  in.read("reservation", out.reservation);
}

void read_kind(Reader& in, Spec& spec) {
  switch (spec.kind) {
    case Kind::kJob:
      in.read("ranks", spec.ranks);
      in.read("ranks_min", spec.ranks_min);
      in.part("helpers", [&](Reader& part) {
        HelpersSpec& helpers = spec.helpers.emplace();
        part.read("ranks", helpers.ranks);
        part.part("resources", [&](Reader& each) { read_resources(each, helpers.resources); });
        part.read("command", helpers.command);
      });
      in.part("checkpoint", [&](Reader& part) { part.read("interval_ms", spec.checkpoint.interval_ms); });
      in.read("time_limit_ms", spec.time_limit_ms);
      break;
    case Kind::kService:
      in.read("replicas", spec.replicas);
      in.part("autoscale", [&](Reader& part) {
        AutoscaleSpec& autoscale = spec.autoscale.emplace();
        part.read("min", autoscale.min);
        part.read("max", autoscale.max);
        part.read("ttft_ms", autoscale.ttft_ms);
        part.read("tpot_ms", autoscale.tpot_ms);
        part.read("calm_ms", autoscale.calm_ms);
      });
      in.read("weight", spec.weight);
      in.part("engine", [&](Reader& part) {
        EngineSpec& engine = spec.engine.emplace();
        part.read("model", engine.model);
        part.read("context", engine.context);
      });
      in.read("model_name", spec.model_name);
      in.read("hedge_after_ms", spec.hedge_after_ms);
      in.read("http2", spec.http2);
      in.read("port", spec.port);
      in.part("health", [&](Reader& part) {
        HealthCheck& health = spec.health.emplace();
        part.read("path", health.path);
        part.read("interval_ms", health.interval_ms);
        part.read("timeout_ms", health.timeout_ms);
        part.read("start_timeout_ms", health.start_timeout_ms);
      });
      break;
    case Kind::kTasks:
      in.read("count", spec.count);
      in.read("parallelism", spec.parallelism);
      in.read("retries", spec.retries);
      in.read("timeout_ms", spec.timeout_ms);
      break;
    case Kind::kSandbox:
      break;  // session_spec.h
  }
}

}  // namespace

std::string_view kind_name(Kind kind) { return kKindNames[static_cast<std::size_t>(kind)]; }

Json to_json(const Spec& spec, Defaults defaults) {
  const Spec& base = shared_defaults(spec.kind);
  Writer out(defaults, defaults == Defaults::kWritten ? 20 : 8);
  out.add("kind", Json(kind_name(spec.kind)));
  out.add("name", Json(spec.name));
  out.add("tenant", spec.tenant, base.tenant);
  out.add("priority", spec.priority, base.priority);
  out.add("labels", spec.labels, base.labels);
  out.add("user", spec.user, base.user);
  out.add("command", spec.command, base.command);
  out.add("env", spec.env, base.env);
  out.add("workdir", spec.workdir, base.workdir);
  if (defaults == Defaults::kWritten || spec.resources != base.resources)
    out.part("resources", resources_to_json(spec.resources, base.resources, defaults));
  out.add("grace_ms", spec.grace_ms, base.grace_ms);
  if (defaults == Defaults::kWritten || spec.restarts != base.restarts)
    out.part("restarts", restarts_to_json(spec.restarts, base.restarts, defaults));
  if (defaults == Defaults::kWritten || spec.placement != base.placement)
    out.part("placement", placement_to_json(spec.placement, base.placement, defaults));
  out.add("preemptible", spec.preemptible, base.preemptible);
  write_kind(out, spec, base, defaults);
  return out.take();
}

Result<Spec> from_json(const Json& json) {
  const Json* kind = json.find("kind");
  if (kind == nullptr || !kind->is_string()) return fail(Code::kCorrupt, "stored spec lacks 'kind'");
  const auto found = std::ranges::find(kKindNames, kind->as_string());
  if (found == kKindNames.end())
    return fail(Code::kCorrupt, "stored spec has unknown kind '{}'", kind->as_string());
  Spec spec = shared_defaults(static_cast<Kind>(found - kKindNames.begin()));
  std::string wrong;
  Reader in(json, "", wrong);
  in.read("name", spec.name);
  if (spec.name.empty()) return fail(Code::kCorrupt, "stored spec lacks 'name'");
  in.read("tenant", spec.tenant);
  in.read("priority", spec.priority);
  in.read("labels", spec.labels);
  in.read("user", spec.user);
  in.read("command", spec.command);
  in.read("env", spec.env);
  in.read("workdir", spec.workdir);
  in.part("resources", [&](Reader& part) { read_resources(part, spec.resources); });
  in.read("grace_ms", spec.grace_ms);
  in.part("restarts", [&](Reader& part) {
    part.read("budget", spec.restarts.budget);
    part.read("backoff_ms", spec.restarts.backoff_ms);
    part.read("backoff_max_ms", spec.restarts.backoff_max_ms);
  });
  in.part("placement", [&](Reader& part) { read_placement(part, spec.placement); });
  in.read("preemptible", spec.preemptible);
  read_kind(in, spec);
  if (!wrong.empty())
    return fail(Code::kCorrupt, "stored spec of '{}': '{}' has the wrong type", spec.name, wrong);
  if (const Json* sandbox = json.find("sandbox"); sandbox != nullptr && spec.kind == Kind::kTasks) {
    CAPSTAN_TRY(spec.sandbox, task_sandbox_from_json(*sandbox));
  }
  if (const Json* session = json.find("session"); session != nullptr && spec.kind == Kind::kSandbox) {
    CAPSTAN_TRY(spec.session, session_spec_from_json(*session));
  }
  return spec;
}

}  // namespace capstan::workload

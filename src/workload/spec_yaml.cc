// How: one function a part of the document; each takes its keys and leaves what is wrong in the Context.
#include <algorithm>
#include <array>
#include <functional>
#include <map>

#include "base/text.h"
#include "workload/quantity.h"
#include "workload/spec.h"
#include "workload/spec_parts.h"
#include "workload/yaml_fields.h"

namespace capstan::workload {
namespace {

using Type = Yaml::Type;

void read_pairs(Context& context, MappingReader& mapping, std::string_view key, Spec::Pairs& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr) return;
  MappingReader pairs(context, *value, fmt::format("'{}'", key));
  for (const auto& [name, item] : value->members) {
    if (item.type != Type::kScalar && item.type != Type::kNull) {
      context.add(item,
                  fmt::format("'{}.{}' must be a single value, not {}", key, name.text, item.type_name()));
    }
    if (name.text.empty() || name.text.find_first_of(std::string_view("=\0", 2)) != std::string::npos) {
      context.add(name.line, name.column, fmt::format("'{}' has a name that is empty or holds '='", key));
    }
    out.emplace_back(name.text, item.scalar);
  }
  std::ranges::sort(out);
}

void read_restarts(Context& context, MappingReader& mapping, bool with_budget, RestartPolicy& out) {
  const Yaml* value = mapping.take("restarts");
  if (value == nullptr) return;
  MappingReader restarts(context, *value, "'restarts'");
  if (with_budget) read_integer(context, restarts, "budget", {0, 1'000'000}, out.budget);
  read_quantity(context, restarts, "backoff", parse_duration_ms, out.backoff_ms);
  read_quantity(context, restarts, "backoff_max", parse_duration_ms, out.backoff_max_ms);
  if (out.backoff_ms > out.backoff_max_ms) {
    context.add(*value,
                fmt::format("'backoff' ({}) is longer than 'backoff_max' ({})",
                            format_duration_ms(out.backoff_ms), format_duration_ms(out.backoff_max_ms)));
  }
  restarts.finish();
}

void read_health(Context& context, MappingReader& mapping, std::optional<HealthCheck>& out) {
  const Yaml* value = mapping.take("health");
  if (value == nullptr) return;
  HealthCheck& health = out.emplace();
  MappingReader fields(context, *value, "'health'");
  read_text(context, fields, "path", health.path);
  if (!health.path.starts_with('/'))
    context.add(*value, fmt::format("'health.path' must start with '/', not '{}'", health.path));
  read_quantity(context, fields, "interval", parse_duration_ms, health.interval_ms);
  read_quantity(context, fields, "timeout", parse_duration_ms, health.timeout_ms);
  read_quantity(context, fields, "start_timeout", parse_duration_ms, health.start_timeout_ms);
  if (health.interval_ms < 100) context.add(*value, "'health.interval' must be at least 100ms");
  fields.finish();
}

void read_engine(Context& context, MappingReader& mapping, std::optional<EngineSpec>& out) {
  const Yaml* value = mapping.take("engine");
  if (value == nullptr) return;
  EngineSpec& engine = out.emplace();
  MappingReader fields(context, *value, "'engine'");
  const Yaml* model = fields.take("model");
  if (model == nullptr) {
    context.add(*value,
                "'engine.model' is missing; give a model's directory, or 'abacus', which ships with Capstan");
  } else if (is_scalar(context, *model, "engine.model")) {
    engine.model = model->scalar;
    const bool path = engine.model.find('/') != std::string::npos;
    if (path) read_path(context, fields, "model", engine.model);
    if (!path && engine.model != "abacus") {
      context.add(
          *model,
          fmt::format("no model '{0}' ships with Capstan; known is 'abacus', a directory is written './{0}'",
                      engine.model));
    }
  }
  read_integer(context, fields, "context", {0, 1 << 20}, engine.context);
  fields.finish();
}

void read_job(Context& context, MappingReader& mapping, Spec& spec) {
  read_restarts(context, mapping, true, spec.restarts);
  read_quantity(context, mapping, "time_limit", parse_duration_ms, spec.time_limit_ms);
  if (const Yaml* value = mapping.take("checkpoint")) {
    MappingReader checkpoint(context, *value, "'checkpoint'");
    read_quantity(context, checkpoint, "interval", parse_duration_ms, spec.checkpoint.interval_ms);
    checkpoint.finish();
  }
}

void read_autoscale(Context& context, MappingReader& mapping, Spec& spec) {
  const Yaml* value = mapping.take("autoscale");
  if (value == nullptr) return;
  AutoscaleSpec& out = spec.autoscale.emplace();
  MappingReader fields(context, *value, "'autoscale'");
  if (value->type == Type::kMapping && fields.peek("max") == nullptr)
    context.add(*value, "'autoscale.max' is missing; write the most replicas, for example 'max: 4'");
  read_integer(context, fields, "min", {0, kReplicasMax}, out.min);
  read_integer(context, fields, "max", {1, kReplicasMax}, out.max);
  read_quantity(context, fields, "ttft", parse_duration_ms, out.ttft_ms);
  read_quantity(context, fields, "tpot", parse_duration_ms, out.tpot_ms);
  read_quantity(context, fields, "calm", parse_duration_ms, out.calm_ms);
  fields.finish();
  if (out.min > out.max)
    context.add(*value, fmt::format("'autoscale.min' is {}, above 'max', {}; write at most {}", out.min,
                                    out.max, out.max));
  if (out.ttft_ms == 0 && out.tpot_ms == 0)
    context.add(*value, "'autoscale' needs an objective: 'ttft', 'tpot' or both, for example 'ttft: 2s'");
  if (mapping.peek("replicas") == nullptr) spec.replicas = std::max<std::int64_t>(out.min, 1);
  if (out.min <= out.max && (spec.replicas < out.min || spec.replicas > out.max)) {
    context.add(*value,
                fmt::format("'replicas' is {}, to begin with; with this 'autoscale' it must be {} to {}",
                            spec.replicas, out.min, out.max));
  }
  if (spec.model_name.empty() && !spec.engine)
    context.add(*value, "'autoscale' follows what the gateway sees; give the service a 'model_name'");
}

// How the gateway asks the replicas.
void read_gateway_fields(Context& context, MappingReader& mapping, Spec& spec) {
  for (const std::string_view key : {"hedge_after", "http2"}) {
    const Yaml* value = mapping.peek(key);
    if (value != nullptr && spec.model_name.empty() && !spec.engine)
      context.add(*value, fmt::format("'{}' is how the gateway asks; give the service a 'model_name'", key));
  }
  read_quantity(context, mapping, "hedge_after", parse_duration_ms, spec.hedge_after_ms);
  if (mapping.peek("http2") == nullptr) return;
  bool http2 = false;
  read_bool(context, mapping, "http2", http2);
  spec.http2 = http2;
}

void read_service(Context& context, MappingReader& mapping, Spec& spec) {
  read_integer(context, mapping, "replicas", {0, kReplicasMax}, spec.replicas);
  read_integer(context, mapping, "weight", {0, kWeightMax}, spec.weight);
  read_restarts(context, mapping, false, spec.restarts);
  read_engine(context, mapping, spec.engine);
  read_text(context, mapping, "model_name", spec.model_name);
  read_integer(context, mapping, "port", {0, 65535}, spec.port);
  read_health(context, mapping, spec.health);
  if (spec.engine) {
    if (spec.model_name.empty()) spec.model_name = spec.name;
    if (!spec.health) spec.health.emplace();
  }
  read_autoscale(context, mapping, spec);
  read_gateway_fields(context, mapping, spec);
  const Yaml* port = mapping.peek("port");
  const std::int64_t most = spec.autoscale ? spec.autoscale->max : spec.replicas;
  if (spec.port != 0 && most > 1 && port != nullptr) {
    context.add(
        *port,
        fmt::format(
            "{} replicas on one host cannot share port {}; leave 'port' out and Capstan chooses one each",
            most, spec.port));
  }
}

void read_tasks(Context& context, MappingReader& mapping, Spec& spec) {
  read_integer(context, mapping, "count", {1, kTasksMax}, spec.count);
  read_integer(context, mapping, "parallelism", {0, kTasksMax}, spec.parallelism);
  read_integer(context, mapping, "retries", {0, 1000}, spec.retries);
  read_quantity(context, mapping, "timeout", parse_duration_ms, spec.timeout_ms);
  read_task_sandbox(context, mapping, spec);
}

std::optional<Kind> read_kind(Context& context, MappingReader& mapping) {
  constexpr std::array<std::string_view, 4> kKinds{"job", "service", "tasks", "sandbox"};
  const Yaml* value = mapping.take("kind");
  if (value == nullptr) {
    if (mapping.node().type == Type::kMapping) {
      context.add(mapping.node(),
                  "'kind' is missing; write 'kind: job', 'kind: service', 'kind: tasks' or 'kind: sandbox' first");
    }
    return std::nullopt;
  }
  if (!is_scalar(context, *value, "kind")) return std::nullopt;
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (value->scalar == kKinds[i]) return static_cast<Kind>(i);
  }
  std::string hint;
  const std::string advice = did_you_mean(value->scalar, kKinds, hint);
  context.add(value->line, value->column, fmt::format("unknown kind '{}'; {}", value->scalar, advice), hint);
  return std::nullopt;
}

void check_command(Context& context, MappingReader& mapping, const Spec& spec) {
  if (spec.kind == Kind::kSandbox) return;
  if (spec.kind == Kind::kService && spec.engine && !spec.command.empty()) {
    context.add(mapping.node(), "a service has either 'command' or 'engine', not both");
  } else if (spec.kind == Kind::kService && !spec.engine && spec.command.empty()) {
    context.add(mapping.node(),
                "a service needs a 'command' to run, or an 'engine' with a 'model' for the built-in one");
  } else if (spec.kind != Kind::kService && mapping.peek("command") == nullptr &&
             !(spec.sandbox && spec.sandbox->lane != "process")) {
    context.add(mapping.node(), "'command' is missing; write for example 'command: python3 train.py'");
  }
}

std::optional<Spec> read_document(Context& context, const Yaml& document) {
  const std::size_t errors_before = context.diagnostics.size();
  MappingReader mapping(context, document, "a document");
  const auto kind = read_kind(context, mapping);
  if (!kind) return std::nullopt;
  Spec spec;
  spec.kind = *kind;
  if (spec.kind != Kind::kJob) spec.placement.required = fleet::Level::kNone;
  if (spec.kind == Kind::kSandbox) spec.restarts.budget = 0;
  read_name(context, mapping, "name", true, spec.name);
  read_name(context, mapping, "tenant", false, spec.tenant);
  read_integer(context, mapping, "priority", {kPriorityMin, kPriorityMax}, spec.priority);
  read_pairs(context, mapping, "labels", spec.labels);
  const bool program = spec.kind != Kind::kSandbox;  // which has none of its own, and refuses these keys
  if (program) read_text(context, mapping, "user", spec.user);
  if (program) read_command(context, mapping, spec.command);
  read_pairs(context, mapping, "env", spec.env);
  if (program) read_path(context, mapping, "workdir", spec.workdir);
  read_resources(context, mapping, spec.resources);
  read_bool(context, mapping, "preemptible", spec.preemptible);
  read_quantity(context, mapping, "grace", parse_duration_ms, spec.grace_ms);
  read_gang(context, mapping, spec);
  read_placement(context, mapping, spec);
  switch (spec.kind) {
    case Kind::kJob:
      read_job(context, mapping, spec);
      break;
    case Kind::kService:
      read_service(context, mapping, spec);
      break;
    case Kind::kTasks:
      read_tasks(context, mapping, spec);
      break;
    case Kind::kSandbox:
      read_restarts(context, mapping, true, spec.restarts);
      read_session(context, mapping, spec);
      break;
  }
  mapping.finish();
  check_gang(context, mapping, spec);
  check_command(context, mapping, spec);
  if (context.diagnostics.size() > errors_before) return std::nullopt;
  return spec;
}

}  // namespace

std::string Diagnostic::text() const { return fmt::format("{}:{}:{}: {}", file, line, column, message); }

std::expected<std::vector<Spec>, std::vector<Diagnostic>> parse_specs(std::string_view yaml,
                                                                      const ParseOptions& options) {
  Context context{options.source, options.base_directory};
  const auto documents = read_yaml(yaml, options.source);
  if (!documents) return std::unexpected(std::vector<Diagnostic>{documents.error()});
  if (documents->empty()) context.add(1, 1, "the file holds no workload; start with 'kind: job'");
  if (documents->size() > kDocumentsMax) {
    context.add(documents->at(kDocumentsMax),
                fmt::format("more than {} documents in one file", kDocumentsMax));
    return std::unexpected(std::move(context.diagnostics));
  }
  std::vector<Spec> specs;
  std::map<std::string, int> line_of_name;
  for (const Yaml& document : *documents) {
    auto spec = read_document(context, document);
    if (!spec) continue;
    const auto [found, fresh] = line_of_name.emplace(spec->name, document.line);
    if (!fresh) {
      context.add(document, fmt::format("name '{}' is already used by the document on line {}", spec->name,
                                        found->second));
    }
    specs.push_back(std::move(*spec));
  }
  if (context.diagnostics.empty()) return specs;
  std::ranges::stable_sort(context.diagnostics, {},
                           [](const Diagnostic& d) { return std::pair(d.line, d.column); });
  return std::unexpected(std::move(context.diagnostics));
}

}  // namespace capstan::workload

// How it works: the keys of workload files where they mean the same, beside those that only a simulation has.
#include "sim/scenario_parts.h"
#include "sim/training_model.h"
#include "workload/quantity.h"
#include "workload/spec_parts.h"

namespace capstan::sim {
namespace {

using workload::Context;
using workload::Kind;
using workload::MappingReader;
using workload::read_integer;
using workload::read_quantity;
using workload::Yaml;

constexpr std::size_t kKindLengthMax = 40;  // "-" and a number follow it in a name
constexpr std::int64_t kRestartsMax = 1'000'000;

void read_checkpoint(Context& context, MappingReader& mapping, WorkTemplate& out) {
  const Yaml* value = mapping.take("checkpoint");
  if (value == nullptr) return;
  MappingReader fields(context, *value, "'checkpoint'");
  read_duration(context, fields, "interval", 1'000, out.spec.checkpoint.interval_ms);
  read_duration(context, fields, "stall", 0, out.behaviour.checkpoint_stall_ms);
  fields.finish();
}

void read_estimate(Context& context, MappingReader& mapping, WorkTemplate& out) {
  const Yaml* value = mapping.take("estimate");
  if (value == nullptr) return;
  MappingReader fields(context, *value, "'estimate'");
  out.estimate_percent = 100;
  read_integer(context, fields, "percent", kPercents, out.estimate_percent);
  read_duration(context, fields, "slack", 0, out.estimate_slack_ms);
  fields.finish();
}

void read_restart_budget(Context& context, MappingReader& mapping, WorkTemplate& out) {
  out.spec.restarts.budget = kRestartsMax;
  const Yaml* value = mapping.take("restarts");
  if (value == nullptr) return;
  MappingReader fields(context, *value, "'restarts'");
  read_integer(context, fields, "budget", {0, kRestartsMax}, out.spec.restarts.budget);
  read_duration(context, fields, "backoff", 0, out.spec.restarts.backoff_ms);
  read_duration(context, fields, "backoff_max", 0, out.spec.restarts.backoff_max_ms);
  fields.finish();
  if (out.spec.restarts.backoff_ms > out.spec.restarts.backoff_max_ms)
    context.add(*value, "'backoff' is longer than 'backoff_max'");
}

}  // namespace

void read_duration(Context& context, MappingReader& mapping, std::string_view key, std::int64_t low_ms, std::int64_t& out) {
  const Yaml* value = mapping.peek(key);
  std::int64_t read_ms = out;
  read_quantity(context, mapping, key, workload::parse_duration_ms, read_ms);
  if (value != nullptr && read_ms < low_ms) {
    context.add(*value, fmt::format("'{}' must be at least {}, not {}", key, workload::format_duration_ms(low_ms),
                                    workload::format_duration_ms(read_ms)));
    return;
  }
  if (read_ms > kDurationMaxMs) {
    context.add(*value, fmt::format("'{}' must be at most {}, a century, not {}", key,
                                    workload::format_duration_ms(kDurationMaxMs), workload::format_duration_ms(read_ms)));
    return;
  }
  out = read_ms;
}

void read_template(Context& context, MappingReader& mapping, Kind kind, WorkTemplate& out) {
  workload::read_name(context, mapping, "kind", false, out.kind);
  if (out.kind.size() > kKindLengthMax)
    context.add(*mapping.peek("kind"), fmt::format("'kind' must have at most {} characters", kKindLengthMax));
  workload::read_name(context, mapping, "tenant", false, out.spec.tenant);
  read_integer(context, mapping, "priority", {workload::kPriorityMin, workload::kPriorityMax}, out.spec.priority);
  workload::read_bool(context, mapping, "preemptible", out.spec.preemptible);
  read_duration(context, mapping, "grace", 0, out.spec.grace_ms);
  read_duration(context, mapping, "start", 0, out.behaviour.start_ms);
  out.spec.kind = kind;
  if (kind != Kind::kJob) out.spec.placement.required = fleet::Level::kNone;
  const std::int64_t ranks = std::exchange(out.spec.ranks, workload::kRanksMax);  // any segment will do here
  workload::read_placement(context, mapping, out.spec);
  out.spec.ranks = ranks;
  workload::read_resources(context, mapping, out.spec.resources);
  if (kind == Kind::kTasks) return;
  if (out.spec.resources.gpus + out.spec.resources.gpu_milli > 0)
    context.add(*mapping.peek("resources"),
                "'resources' is for work without GPUs; with GPUs write 'cpus_per_gpu' and "
                "'memory_per_gpu'");
  read_quantity(context, mapping, "cpus_per_gpu", workload::parse_milli_cpus, out.milli_cpus_per_gpu);
  read_quantity(context, mapping, "memory_per_gpu", workload::parse_bytes, out.memory_bytes_per_gpu);
  read_duration(context, mapping, "restart", 0, out.behaviour.restart_ms);
  read_restart_budget(context, mapping, out);
  if (kind != Kind::kJob) return;
  read_integer(context, mapping, "gpus_per_rank", {1, workload::kGpusMax}, out.gpus_per_rank);
  read_checkpoint(context, mapping, out);
  read_estimate(context, mapping, out);
  const auto* model = mapping.peek("model");
  workload::read_text(context, mapping, "model", out.behaviour.model);
  if (model != nullptr && !out.behaviour.model.empty() && training_model(out.behaviour.model) == nullptr)
    context.add(*model, fmt::format("no model is called '{}'; there are {}", out.behaviour.model, training_model_names()));
}

}  // namespace capstan::sim

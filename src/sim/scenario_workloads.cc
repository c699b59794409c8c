// How it works: an item names a trace or a generator; each has its own keys beside the common ones (scenario_template.cc).
#include <algorithm>

#include "base/text.h"
#include "sim/scenario_parts.h"
#include "workload/quantity.h"

namespace capstan::sim {
namespace {

using workload::Context;
using workload::Kind;
using workload::MappingReader;
using workload::read_integer;
using workload::Yaml;

constexpr workload::Range kCounts = {1, 1'000'000'000};

// "10", or {min: 10, max: 1000}.
void read_span(Context& context, MappingReader& mapping, std::string_view key, workload::QuantityParser parse, std::int64_t low,
               std::int64_t& min, std::int64_t& max) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr) return;
  if (value->type == Yaml::Type::kScalar) {
    workload::read_quantity(context, mapping, key, parse, min);
    max = min;
  } else {
    MappingReader fields(context, *value, fmt::format("'{}'", key));
    workload::read_quantity(context, fields, "min", parse, min);
    workload::read_quantity(context, fields, "max", parse, max);
    fields.finish();
  }
  if (min < low || min > max)
    context.add(
        *value,
        fmt::format("'{}' must be one value, or 'min' and 'max' with max not below min, such as {{min: 1, max: 4}}", key));
}

Result<std::int64_t> parse_count(std::string_view text) {
  const auto value = parse_int(text);
  if (!value || *value < 0 || *value > kCounts.high)
    return fail(Code::kInvalid, "must be a whole number up to {}, not '{}'", kCounts.high, text);
  return *value;
}

void read_curve(Context& context, MappingReader& mapping, DailyCurve& out) {
  const Yaml* value = mapping.take("curve");
  if (value == nullptr) return;
  if (value->type == Yaml::Type::kScalar) {
    constexpr std::array<std::string_view, 3> kNames = {"flat", "office-hours", "consumers"};
    const std::array<const DailyCurve*, 3> curves = {&kFlat, &kOfficeHours, &kConsumers};
    const auto at = std::ranges::find(kNames, value->scalar);
    if (at != kNames.end()) {
      out = *curves[static_cast<std::size_t>(at - kNames.begin())];
      return;
    }
    std::string hint;
    const std::string advice = workload::did_you_mean(value->scalar, kNames, hint);
    return context.add(value->line, value->column, fmt::format("unknown curve '{}'; {}", value->scalar, advice), hint);
  }
  std::int64_t sum = 0;
  for (std::size_t hour = 0; hour < value->items.size() && hour < out.size(); ++hour) {
    const auto share = parse_int(value->items[hour].scalar);
    if (!share || *share < 0 || *share > 1000)
      return context.add(value->items[hour], "an hour of a curve is 0 to 1000, thousandths of the busiest hour");
    sum += out[hour] = *share;
  }
  if (value->items.size() != out.size() || sum == 0)
    context.add(*value, "a curve is 'flat', 'office-hours', 'consumers', or a list of 24 numbers that are not all 0");
}

// `work` of a size: one duration, or several that do not fall, from the shortest to the longest at equal shares.
void read_quantiles(Context& context, MappingReader& mapping, std::vector<Quantile>& out) {
  const Yaml* value = mapping.take("work");
  if (value == nullptr) return context.add(mapping.node(), "a size needs 'work', such as 'work: [10m, 1h, 8h]'");
  std::vector<const Yaml*> items;
  if (value->type == Yaml::Type::kScalar) items = {value, value};
  for (const Yaml& item : value->items) items.push_back(&item);
  const auto last = static_cast<std::int64_t>(items.size()) - 1;
  if (last < 1 || last > 1000) return context.add(*value, "'work' must be a duration, or a list of 2 to 1001 durations");
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto work_ms = workload::parse_duration_ms(items[i]->scalar);
    if (!work_ms) return context.add(*items[i], fmt::format("'work': {}", work_ms.error().message));
    if (*work_ms < 1 || (i > 0 && *work_ms < out.back().work_ms))
      return context.add(*items[i], "durations of 'work' must be above 0 and must not fall");
    out.push_back({static_cast<std::int64_t>(i) * 1000 / last, *work_ms});
  }
}

void read_sizes(Context& context, MappingReader& mapping, std::vector<SizeClass>& out) {
  const Yaml* value = mapping.take("sizes");
  if (value == nullptr || value->scalar == "philly") return;
  if (value->type != Yaml::Type::kSequence || value->items.empty())
    return context.add(*value, "'sizes' must be 'philly', or a list such as [{gpus: 8, weight: 3, work: [1h, 4h, 2d]}]");
  out.clear();
  for (const Yaml& item : value->items) {
    MappingReader fields(context, item, "a size");
    if (item.type != Yaml::Type::kMapping) continue;
    SizeClass& size = out.emplace_back();
    read_integer(context, fields, "gpus", {1, workload::kRanksMax}, size.gpus);
    read_integer(context, fields, "weight", {1, 1'000'000'000}, size.weight);
    read_quantiles(context, fields, size.work);
    fields.finish();
  }
}

void read_names(Context& context, MappingReader& mapping, std::string_view key, std::vector<std::string>& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr) return;
  if (value->type != Yaml::Type::kSequence) return context.add(*value, fmt::format("'{}' must be a list of names", key));
  for (const Yaml& item : value->items) {
    if (!workload::is_name(item.scalar)) context.add(item, fmt::format("'{}' is no name of a tenant", item.scalar));
    out.push_back(item.scalar);
  }
}

FrontierRuns read_frontier(Context& context, MappingReader& mapping) {
  FrontierRuns out;
  out.pattern.kind = "frontier";
  out.gap_ms = 86'400'000;
  read_template(context, mapping, Kind::kJob, out.pattern);
  read_integer(context, mapping, "count", {1, 100'000}, out.count);
  read_integer(context, mapping, "ranks", {1, workload::kRanksMax}, out.ranks);
  read_integer(context, mapping, "ranks_min", {1, workload::kRanksMax}, out.pattern.spec.ranks_min);
  read_duration(context, mapping, "work", 1, out.work_ms);
  read_duration(context, mapping, "every", 0, out.gap_ms);
  for (const std::string_view key : {"ranks", "work"}) {
    if (mapping.peek(key) == nullptr)
      context.add(mapping.node(),
                  fmt::format("'{}' is missing; write for example '{}'", key, key == "work" ? "work: 60d" : "ranks: 2048"));
  }
  const std::int64_t segment = std::min(out.pattern.spec.placement.segment, out.ranks);
  const std::int64_t ranks_min = out.pattern.spec.ranks_min;
  if (ranks_min > out.ranks || (segment > 0 && ranks_min % segment != 0))
    context.add(*mapping.peek("ranks_min"), "'ranks_min' must be at most 'ranks', and a multiple of the segment");
  return out;
}

FineTunes read_fine_tunes(Context& context, MappingReader& mapping) {
  FineTunes out;
  out.pattern.kind = "fine-tune";
  out.curve = kOfficeHours;
  read_template(context, mapping, Kind::kJob, out.pattern);
  read_duration(context, mapping, "mean_gap", 1, out.mean_gap_ms);
  read_curve(context, mapping, out.curve);
  read_sizes(context, mapping, out.sizes);
  read_names(context, mapping, "tenants", out.tenants);
  return out;
}

InferenceServices read_services(Context& context, MappingReader& mapping) {
  InferenceServices out;
  out.pattern.kind = "service";
  read_template(context, mapping, Kind::kService, out.pattern);
  read_integer(context, mapping, "count", {1, 100'000}, out.count);
  read_integer(context, mapping, "gpus", {0, workload::kGpusMax}, out.gpus);
  read_span(context, mapping, "replicas", parse_count, 0, out.replicas_min, out.replicas_max);
  if (out.replicas_max > 100'000) context.add(*mapping.peek("replicas"), "a service has at most 100000 replicas");
  read_curve(context, mapping, out.curve);
  read_duration(context, mapping, "every", 1'000, out.every_ms);
  std::int64_t noise_percent = out.noise_milli / 10;
  read_integer(context, mapping, "noise_percent", {0, 100}, noise_percent);
  out.noise_milli = noise_percent * 10;
  return out;
}

AgentBursts read_bursts(Context& context, MappingReader& mapping) {
  AgentBursts out;
  out.pattern.kind = "agents";
  read_template(context, mapping, Kind::kTasks, out.pattern);
  read_duration(context, mapping, "mean_gap", 1, out.mean_gap_ms);
  read_curve(context, mapping, out.curve);
  read_span(context, mapping, "arrays", parse_count, 1, out.arrays_min, out.arrays_max);
  read_duration(context, mapping, "within", 0, out.within_ms);
  read_span(context, mapping, "tasks", parse_count, 1, out.tasks_min, out.tasks_max);
  read_span(context, mapping, "work", workload::parse_duration_ms, 1, out.work_min_ms, out.work_max_ms);
  std::int64_t spread_percent = 0;
  read_integer(context, mapping, "spread_percent", {0, 100}, spread_percent);
  out.pattern.behaviour.spread_milli = spread_percent * 10;
  read_integer(context, mapping, "parallelism", {0, workload::kTasksMax}, out.pattern.spec.parallelism);
  read_integer(context, mapping, "retries", {0, 1000}, out.pattern.spec.retries);
  return out;
}

// The file that is meant, and where it was looked for.
std::filesystem::path find_trace(const std::string& name, const Places& places, std::string& looked) {
  if (!places.options.trace.empty()) return places.options.trace;
  std::vector<std::filesystem::path> candidates = {places.directory / name};
  if (!std::filesystem::path(name).is_absolute()) {
    for (const auto& directory : places.options.trace_directories) candidates.push_back(directory / name);
  }
  for (const auto& candidate : candidates) {
    std::error_code error;
    if (std::filesystem::exists(candidate, error)) return candidate;
    looked += (looked.empty() ? "" : ", ") + candidate.parent_path().string() + "/";
  }
  return {};
}

void read_tenants_of_trace(Context& context, MappingReader& mapping, TraceReplay& out) {
  workload::read_text(context, mapping, "tenant_prefix", out.tenant_prefix);
  const Yaml* value = mapping.take("tenants");
  if (value == nullptr) return;
  out.owners_are_tenants = true;
  if (value->type == Yaml::Type::kScalar && value->scalar == "from-trace") return;
  MappingReader fields(context, *value, "'tenants' ('from-trace', or names of the trace to tenants)");
  for (const auto& [owner, tenant] : value->members) {
    if (!workload::is_name(tenant.scalar)) context.add(tenant, fmt::format("'{}' is no name of a tenant", tenant.scalar));
    out.tenants[owner.text] = tenant.scalar;
  }
}

void read_processors(Context& context, MappingReader& mapping, TraceReading& out) {
  std::string are = "cpus";
  workload::read_text(context, mapping, "processors_are", are);
  out.processors_are_gpus = are == "gpus";
  if (are != "cpus" && are != "gpus") context.add(*mapping.peek("processors_are"), "'processors_are' is 'cpus' or 'gpus'");
}

TraceWorkload read_trace_workload(Context& context, MappingReader& mapping, const Yaml& name, const Places& places,
                                  std::vector<std::string>& notes) {
  TraceWorkload out;
  TraceReplay& replay = out.replay;
  TraceReading reading;
  if (!workload::is_scalar(context, name, "trace")) return out;
  std::string looked;
  out.path = find_trace(name.scalar, places, looked);
  const std::string file = out.path.filename().string();
  replay.pattern.kind = label_of(file.substr(0, std::min<std::size_t>(file.find('.'), 20)));
  read_template(context, mapping, Kind::kJob, replay.pattern);
  read_integer(context, mapping, "rows", kCounts, reading.rows_max);
  read_duration(context, mapping, "from", 0, reading.from_ms);
  read_duration(context, mapping, "until", 1, reading.until_ms);
  if (reading.until_ms > 0 && reading.until_ms <= reading.from_ms)
    context.add(*mapping.peek("until"), "'until' must be after 'from'");
  read_duration(context, mapping, "starts_at", 0, replay.starts_at_ms);
  read_processors(context, mapping, reading);
  read_integer(context, mapping, "arrivals_percent", {0, 100'000}, replay.arrivals_percent);
  read_integer(context, mapping, "durations_percent", kPercents, replay.durations_percent);
  read_tenants_of_trace(context, mapping, replay);
  workload::read_bool(context, mapping, "models_from_trace", replay.models_from_trace);
  workload::read_bool(context, mapping, "own_estimates", replay.own_estimates);
  if (out.path.empty()) {
    context.add(name, fmt::format("there is no trace '{}' in {}; write its path from the scenario's directory, or name the "
                                  "directory of traces with --traces",
                                  name.scalar, looked));
    return out;
  }
  auto trace = read_trace(out.path, reading);
  if (!trace) {
    context.add(name, trace.error().message);
    return out;
  }
  if (trace->rows_left_out > 0)
    notes.push_back(fmt::format("{}: {} rows of the trace have no time or never ran and are left out", replay.pattern.kind,
                                trace->rows_left_out));
  out.trace = std::make_shared<const Trace>(*std::move(trace));
  return out;
}

// What the generator is called, and whether it ever ends by itself.
bool read_generator(Context& context, MappingReader& mapping, const Yaml& name, Workload& out) {
  constexpr std::array<std::string_view, 4> kNames = {"frontier", "fine-tunes", "services", "agents"};
  if (!workload::is_scalar(context, name, "generate")) return true;
  if (name.scalar == kNames[0]) {
    out.what = read_frontier(context, mapping);
  } else if (name.scalar == kNames[1]) {
    out.what = read_fine_tunes(context, mapping);
  } else if (name.scalar == kNames[2]) {
    out.what = read_services(context, mapping);
  } else if (name.scalar == kNames[3]) {
    out.what = read_bursts(context, mapping);
  } else {
    std::string hint;
    const std::string advice = workload::did_you_mean(name.scalar, kNames, hint);
    context.add(name.line, name.column, fmt::format("unknown generator '{}'; {}", name.scalar, advice), hint);
    return true;
  }
  read_duration(context, mapping, "from", 0, out.from_ms);
  read_duration(context, mapping, "until", 1, out.until_ms);
  if (out.until_ms > 0 && out.until_ms <= out.from_ms) context.add(*mapping.peek("until"), "'until' must be after 'from'");
  mapping.finish();
  return name.scalar == kNames[0];
}

}  // namespace

void read_workload(Context& context, const Yaml& node, const Places& places, Scenario& out) {
  MappingReader mapping(context, node, "a workload");
  if (node.type != Yaml::Type::kMapping) return;
  Workload& one = out.workloads.emplace_back();
  const Yaml* trace = mapping.take("trace");
  const Yaml* generator = mapping.take("generate");
  if ((trace == nullptr) == (generator == nullptr))
    return context.add(node, "a workload has either 'trace: FILE' or 'generate: frontier, fine-tunes, services or agents'");
  bool ends = true;
  if (trace != nullptr) {
    one.what = read_trace_workload(context, mapping, *trace, places, out.notes);
    mapping.finish();
  } else {
    ends = read_generator(context, mapping, *generator, one);
  }
  if (!ends && out.duration_ms == 0 && one.until_ms == 0)
    context.add(node, "without a 'duration' of the scenario this never ends; write one, or 'until' here");
}

}  // namespace capstan::sim

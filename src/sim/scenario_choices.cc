// How it works: each choice starts from what holds already, so a variant says only what differs.
#include <algorithm>
#include <array>

#include "base/text.h"
#include "scheduler/queue.h"
#include "sim/failure_rates.h"
#include "sim/scenario_parts.h"

namespace capstan::sim {
namespace {

using workload::Context;
using workload::MappingReader;
using workload::read_integer;
using workload::Yaml;

// That the set exists, and what is changed in it too.
void check_failures(Context& context, const Yaml& at, const FailureChoice& choice) {
  if (choice.rates.empty()) return;
  auto rates = rate_set(choice.rates);
  if (!rates) {
    std::vector<std::string_view> names = rate_sets();
    names.push_back("none");
    std::string hint;
    const std::string advice = workload::did_you_mean(choice.rates, names, hint);
    return context.add(at.line, at.column, fmt::format("unknown failure rates '{}'; {}", choice.rates, advice), hint);
  }
  for (const auto& [cause, events] : choice.overrides) {
    if (const auto changed = override_rate(*rates, cause, events); !changed) context.add(at, changed.error().message);
  }
}

// Names of causes, numbers of events.
void read_overrides(Context& context, MappingReader& mapping, FailureChoice& out) {
  const Yaml* value = mapping.take("set");
  if (value == nullptr) return;
  MappingReader fields(context, *value, "'set'");
  for (const auto& [name, item] : value->members) {
    const auto number = parse_int(item.scalar);
    if (!number || *number < 0) {
      context.add(item, fmt::format("'{}' must be a whole number that is not negative, not '{}'", name.text, item.scalar));
      continue;
    }
    std::erase_if(out.overrides, [&](const auto& one) { return one.first == name.text; });
    out.overrides.emplace_back(name.text, *number);
  }
}

}  // namespace

void read_policy(Context& context, MappingReader& mapping, PolicyChoice& out) {
  const Yaml* value = mapping.take("policy");
  if (value == nullptr) return;
  MappingReader fields(context, *value, "'policy'");
  if (const Yaml* order = fields.take("order"); order != nullptr && workload::is_scalar(context, *order, "order")) {
    constexpr std::array<std::string_view, 5> kOrders = {"fair-share", "fifo", "sjf", "srtf", "srsf"};
    out.order = order->scalar;
    if (!scheduler::parse_order(out.order)) {
      std::string hint;
      const std::string advice = workload::did_you_mean(out.order, kOrders, hint);
      context.add(order->line, order->column, fmt::format("unknown order '{}'; {}", out.order, advice), hint);
    }
  }
  read_duration(context, fields, "starvation", 0, out.starvation_ms);
  fields.finish();
}

void read_failures(Context& context, MappingReader& mapping, FailureChoice& out) {
  const Yaml* value = mapping.take("failures");
  if (value == nullptr) return;
  const std::string before = out.rates;
  if (value->type == Yaml::Type::kScalar) {
    out.rates = value->scalar;
    if (out.rates != before) out.overrides.clear();
  } else {
    MappingReader fields(context, *value, "'failures'");
    workload::read_text(context, fields, "rates", out.rates);
    if (out.rates != before) out.overrides.clear();  // they were another set's
    read_integer(context, fields, "rates_percent", {0, 100'000}, out.rates_percent);
    read_integer(context, fields, "repair_percent", {0, 100'000}, out.repair_percent);
    read_overrides(context, fields, out);
    fields.finish();
    if (out.rates.empty()) context.add(*value, "'failures' needs 'rates', the name of a set of rates, or 'none'");
  }
  if (out.rates == "none") out = {};
  check_failures(context, *value, out);
}

void read_variant(Context& context, const Yaml& node, const Places& places, Scenario& out) {
  MappingReader mapping(context, node, "a variant");
  if (node.type != Yaml::Type::kMapping) return;
  Variant one;
  workload::read_name(context, mapping, "name", true, one.name);
  for (const Variant& other : out.variants) {
    if (other.name == one.name) context.add(node, fmt::format("two variants are called '{}'", one.name));
  }
  if (mapping.peek("policy") != nullptr) read_policy(context, mapping, one.policy.emplace(out.policy));
  if (mapping.peek("failures") != nullptr) read_failures(context, mapping, one.failures.emplace(out.failures));
  if (const Yaml* fleet = mapping.take("fleet")) one.fleet = read_fleet_choice(context, *fleet, places);
  if (mapping.peek("spares") != nullptr)
    read_integer(context, mapping, "spares", {0, fleet::kTraysMax - 1}, one.spares.emplace());
  if (const Yaml* checkpoint = mapping.take("checkpoint")) {
    MappingReader fields(context, *checkpoint, "'checkpoint'");
    if (fields.peek("interval") != nullptr)
      read_duration(context, fields, "interval", 1'000, one.checkpoint_interval_ms.emplace());
    if (fields.peek("stall") != nullptr) read_duration(context, fields, "stall", 0, one.checkpoint_stall_ms.emplace());
    fields.finish();
  }
  // Known keys that are absent: so that a wrong key's hint can name them.
  for (const std::string_view key : {"policy", "failures", "spares"}) mapping.take(key);
  mapping.finish();
  out.variants.push_back(std::move(one));
}

}  // namespace capstan::sim

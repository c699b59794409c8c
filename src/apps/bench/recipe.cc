// How it works: the mapping readers of workload files, so that a recipe is checked like any other file.
#include "apps/bench/recipe.h"

#include "base/text.h"
#include "workload/quantity.h"
#include "workload/yaml_fields.h"

namespace capstan::apps::bench {
namespace {

using workload::Context;
using workload::MappingReader;
using workload::read_integer;
using workload::Yaml;

constexpr std::array<std::int64_t, 6> kPermille = {100, 250, 500, 750, 900, 990};
constexpr workload::Range kCount = {1, 1'000'000'000};
constexpr workload::Range kPercent = {0, 100};

void read_durations(Context& context, MappingReader& mapping, Durations& out) {
  const Yaml* list = mapping.take("duration_s");
  if (list == nullptr || list->items.size() != out.s.size()) {
    context.add(mapping.node(), fmt::format("'duration_s' must be a list of {} numbers", out.s.size()));
    return;
  }
  for (std::size_t i = 0; i < out.s.size(); ++i) {
    const auto value = parse_int(list->items[i].scalar);
    if (!value || *value < (i == 0 ? 0 : out.s[i - 1])) {
      context.add(list->items[i], "durations must be whole seconds that do not fall");
      return;
    }
    out.s[i] = *value;
  }
}

const std::vector<Yaml>& list_of(Context& context, MappingReader& mapping, std::string_view key) {
  static const std::vector<Yaml> kNone;
  const Yaml* list = mapping.take(key);
  if (list != nullptr && !list->items.empty()) return list->items;
  context.add(mapping.node(), fmt::format("'{}' must be a list", key));
  return kNone;
}

void read_small(Context& context, MappingReader& mapping, Recipe& out) {
  for (const Yaml& item : list_of(context, mapping, "small")) {
    SmallSize size;
    MappingReader fields(context, item, "a size");
    read_integer(context, fields, "gpus", {1, 1'024}, size.gpus);
    read_integer(context, fields, "weight", kCount, size.weight);
    read_durations(context, fields, size.durations);
    fields.finish();
    out.small.push_back(size);
  }
}

void read_frontier(Context& context, MappingReader& mapping, Recipe& out) {
  const Yaml* frontier = mapping.take("frontier");
  if (frontier == nullptr) return context.add(mapping.node(), "'frontier' is missing");
  MappingReader fields(context, *frontier, "frontier");
  read_integer(context, fields, "segment", {1, 64}, out.segment);
  read_durations(context, fields, out.gang_durations);
  for (const Yaml& item : list_of(context, fields, "gangs")) {
    GangSize size;
    MappingReader gang(context, item, "a gang");
    read_integer(context, gang, "trays", {1, 100'000}, size.trays);
    read_integer(context, gang, "weight", kCount, size.weight);
    gang.finish();
    out.gangs.push_back(size);
  }
  fields.finish();
}

void read_recipe(Context& context, const Yaml& document, Recipe& out) {
  MappingReader mapping(context, document, "a recipe");
  read_integer(context, mapping, "seed", kCount, out.seed);
  read_integer(context, mapping, "starts_and_ends", kCount, out.starts_and_ends);
  read_integer(context, mapping, "occupancy_percent", {1, 100}, out.occupancy_percent);
  read_integer(context, mapping, "frontier_percent", kPercent, out.frontier_percent);
  read_integer(context, mapping, "tenants", {1, 1'000}, out.tenants);
  read_integer(context, mapping, "waiting_max", {0, 1'000}, out.waiting_max);
  read_integer(context, mapping, "give_up_s", kCount, out.give_up_s);
  read_integer(context, mapping, "limits_percent", kPercent, out.limits_percent);
  read_integer(context, mapping, "services_percent", kPercent, out.services_percent);
  read_integer(context, mapping, "tray_fails_every_days", kCount, out.tray_fails_every_days);
  read_integer(context, mapping, "tray_repair_s", kCount, out.tray_repair_s);
  if (const Yaml* per_gpu = mapping.take("per_gpu")) {
    MappingReader fields(context, *per_gpu, "per_gpu");
    read_quantity(context, fields, "cpus", workload::parse_milli_cpus, out.milli_cpus_per_gpu);
    read_quantity(context, fields, "memory", workload::parse_bytes, out.memory_bytes_per_gpu);
    fields.finish();
  }
  read_small(context, mapping, out);
  read_frontier(context, mapping, out);
  mapping.finish();
}

}  // namespace

std::int64_t Durations::draw_ms(Prng& prng) const {
  const std::int64_t at = prng.between(0, 999);
  std::int64_t low_at = 0, low = s[0] / 2;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (at < kPermille[i])
      return 1 + 1'000 * low + 1'000 * (s[i] - low) * (at - low_at) / (kPermille[i] - low_at);
    low_at = kPermille[i];
    low = s[i];
  }
  return 1'000 * s.back() + 1;
}

Result<Recipe> parse_recipe(std::string_view yaml, const std::string& source) {
  const auto documents = workload::read_yaml(yaml, source);
  if (!documents) return fail(Code::kInvalid, "{}", documents.error().text());
  if (documents->size() != 1) return fail(Code::kInvalid, "{}: a recipe is one document", source);
  Context context{source};
  Recipe out;
  read_recipe(context, documents->front(), out);
  if (!context.diagnostics.empty()) return fail(Code::kInvalid, "{}", context.diagnostics.front().text());
  return out;
}

}  // namespace capstan::apps::bench

// How it works: level by level with yaml_fields.h. Kinds are looked up last, when the file's own classes are known.
#include "workload/fleet_yaml.h"

#include <algorithm>

#include "fleet/catalogue.h"
#include "workload/quantity.h"
#include "workload/yaml_fields.h"

namespace capstan::workload {
namespace {

using fleet::FleetSpec;
using fleet::HostClass;

constexpr std::int64_t kCountMax = fleet::kFleetHostsMax;

// Letters, digits, '-' and '.', and '#' where a number goes.
bool is_pattern(std::string_view text) {
  return !text.empty() && text.size() <= 40 && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '#';
         });
}

void read_pattern(Context& context, MappingReader& mapping, std::string_view key, std::string& out) {
  const Yaml* value = mapping.peek(key);
  read_text(context, mapping, key, out);
  if (value != nullptr && !is_pattern(out)) {
    context.add(*value, fmt::format("'{}' must be of a-z, 0-9, '-', '.' and '#' (for the digits of a number), at most "
                                    "40 characters, such as b##; not '{}'",
                                    key, out));
  }
}

// The items of a list under `key`, each a mapping; `need`: there must be at least one.
std::vector<const Yaml*> items_of(Context& context, MappingReader& mapping, std::string_view key, bool need) {
  std::vector<const Yaml*> out;
  const Yaml* value = mapping.take(key);
  if (value == nullptr) {
    if (need) context.add(mapping.node(), fmt::format("'{}' is missing; it must be a list", key));
    return out;
  }
  if (value->type != Yaml::Type::kSequence) {
    context.add(*value, fmt::format("'{}' must be a list, not {}", key, value->type_name()));
    return out;
  }
  for (const Yaml& item : value->items) out.push_back(&item);
  if (need && out.empty()) context.add(*value, fmt::format("'{}' must not be empty", key));
  return out;
}

HostClass read_class(Context& context, const Yaml& node) {
  HostClass out;
  MappingReader fields(context, node, "a class");
  if (node.type != Yaml::Type::kMapping) return out;
  read_pattern(context, fields, "name", out.name);
  if (out.name.empty()) context.add(node, "a class needs a name, such as 'name: my-tray'");
  read_quantity(context, fields, "cpus", parse_milli_cpus, out.capacity.milli_cpus);
  read_quantity(context, fields, "memory", parse_bytes, out.capacity.memory_bytes);
  read_integer(context, fields, "gpus", {0, fleet::kGpusPerHostMax}, out.capacity.gpus);
  read_text(context, fields, "gpu_model", out.gpu_model);
  read_quantity(context, fields, "gpu_memory", parse_bytes, out.gpu_memory_bytes);
  read_bool(context, fields, "shared_gpus", out.fractional);
  for (const Yaml* item : items_of(context, fields, "gpu_slices", false)) {
    const auto share = item->type == Yaml::Type::kScalar ? parse_milli_cpus(item->scalar) : Result<std::int64_t>(0);
    if (!share || *share < 1 || *share > 999) {
      context.add(*item, "a slice of a GPU is a share between 0 and 1, such as 0.5");
      continue;
    }
    out.gpu_slices.push_back(*share);
  }
  if (out.capacity.milli_cpus == 0 && fields.peek("cpus") == nullptr)
    context.add(node, "a class needs 'cpus', such as 'cpus: 192'");
  if (out.capacity.gpus > 0 && out.gpu_model.empty())
    context.add(node, "a class with GPUs needs 'gpu_model', such as 'gpu_model: h100'");
  fields.finish();
  return out;
}

class Reader {
 public:
  Reader(Context& context, FleetSpec& spec) : context_(context), spec_(spec) {}

  void read(const Yaml& document) {
    MappingReader fields(context_, document, "a fleet");
    if (document.type != Yaml::Type::kMapping) return;
    read_name(context_, fields, "fleet", true, spec_.name);
    for (const Yaml* item : items_of(context_, fields, "classes", false)) {
      own_.push_back(read_class(context_, *item));
      for (std::size_t i = 0; i + 1 < own_.size(); ++i) {
        if (own_[i].name == own_.back().name)
          context_.add(*item, fmt::format("there are two classes {}", own_.back().name));
      }
    }
    for (const Yaml* item : items_of(context_, fields, "regions", true)) read_region(*item);
    fields.finish();
    if (!context_.diagnostics.empty()) return;
    const std::int64_t hosts = fleet::hosts_of(spec_);
    if (hosts > kCountMax)
      context_.add(document, fmt::format("the fleet has more than {} hosts, which is the limit", kCountMax));
    if (hosts == 0) context_.add(document, "the fleet has no hosts");
  }

 private:
  void read_region(const Yaml& node) {
    MappingReader fields(context_, node, "a region");
    if (node.type != Yaml::Type::kMapping) return;
    fleet::RegionSpec& region = spec_.regions.emplace_back();
    read_name(context_, fields, "name", true, region.name);
    for (const Yaml* item : items_of(context_, fields, "clusters", true)) {
      MappingReader cluster(context_, *item, "a cluster");
      if (item->type != Yaml::Type::kMapping) continue;
      fleet::ClusterSpec out;
      read_pattern(context_, cluster, "name", out.name);
      read_integer(context_, cluster, "count", {1, 10'000}, out.count);
      for (const Yaml* block : items_of(context_, cluster, "blocks", true)) out.blocks.push_back(read_block(*block));
      cluster.finish();
      region.clusters.push_back(std::move(out));
    }
    fields.finish();
  }

  fleet::BlockSpec read_block(const Yaml& node) {
    fleet::BlockSpec out;
    MappingReader fields(context_, node, "a block");
    if (node.type != Yaml::Type::kMapping) return out;
    read_pattern(context_, fields, "name", out.name);
    read_integer(context_, fields, "count", {1, 1'000'000}, out.count);
    for (const Yaml* item : items_of(context_, fields, "ultraservers", false)) read_ultraserver(*item, out);
    for (const Yaml* item : items_of(context_, fields, "hosts", false)) read_hosts(*item, out);
    if (out.ultraservers.empty() && out.hosts.empty() && context_.diagnostics.empty())
      context_.add(node, "a block needs 'ultraservers' or 'hosts'");
    fields.finish();
    return out;
  }

  void read_ultraserver(const Yaml& node, fleet::BlockSpec& block) {
    MappingReader fields(context_, node, "an UltraServer group");
    if (node.type != Yaml::Type::kMapping) return;
    fleet::UltraServerGroup out;
    const Yaml* kind = fields.peek("kind");
    read_text(context_, fields, "kind", out.kind);
    read_text(context_, fields, "class", out.host_class);
    read_integer(context_, fields, "trays", {1, fleet::kTraysMax}, out.trays);
    read_integer(context_, fields, "count", {1, kCountMax}, out.count);
    read_integer(context_, fields, "spares", {0, fleet::kTraysMax}, out.spares);
    read_pattern(context_, fields, "name", out.name);
    fields.finish();
    if (kind != nullptr) {
      const auto* known = fleet::find_ultraserver(out.kind);
      if (known == nullptr) {
        std::vector<std::string_view> names;
        for (const auto& one : fleet::ultraserver_kinds()) names.push_back(one.name);
        std::string hint;
        const std::string also = did_you_mean(out.kind, names, hint);
        return context_.add(kind->line, kind->column,
                            fmt::format("unknown kind of UltraServer '{}'; {}", out.kind, also), hint);
      }
      if (out.host_class.empty()) out.host_class = known->host_class;
      if (out.trays == 0) out.trays = known->trays;
    } else if (out.host_class.empty() || out.trays == 0) {
      return context_.add(node, "an UltraServer group needs 'kind', or 'class' and 'trays'");
    }
    if (out.spares >= out.trays) {
      return context_.add(node, fmt::format("'spares' must leave a tray to use: {} of {}", out.spares, out.trays));
    }
    use_class(node, out.host_class);
    block.ultraservers.push_back(std::move(out));
  }

  void read_hosts(const Yaml& node, fleet::BlockSpec& block) {
    MappingReader fields(context_, node, "a host group");
    if (node.type != Yaml::Type::kMapping) return;
    fleet::HostGroup out;
    read_text(context_, fields, "class", out.host_class);
    read_integer(context_, fields, "count", {1, kCountMax}, out.count);
    read_pattern(context_, fields, "name", out.name);
    fields.finish();
    if (out.host_class.empty()) return context_.add(node, "a host group needs 'class', such as 'class: m8g.48xlarge'");
    use_class(node, out.host_class);
    block.hosts.push_back(std::move(out));
  }

  // The class is described in the file or in the catalogue; the spec holds what it uses.
  void use_class(const Yaml& at, const std::string& name) {
    const auto named = [&](const HostClass& one) { return one.name == name; };
    if (std::any_of(spec_.classes.begin(), spec_.classes.end(), named)) return;
    if (const auto own = std::find_if(own_.begin(), own_.end(), named); own != own_.end()) {
      spec_.classes.push_back(*own);
      return;
    }
    if (const HostClass* known = fleet::find_host_class(name)) {
      spec_.classes.push_back(*known);
      return;
    }
    std::vector<std::string_view> names;
    for (const HostClass& one : own_) names.push_back(one.name);
    for (const HostClass& one : fleet::host_classes()) names.push_back(one.name);
    std::string hint;
    const std::string also = did_you_mean(name, names, hint);
    context_.add(at.line, at.column, fmt::format("unknown host class '{}'; {}", name, also), hint);
  }

  Context& context_;
  FleetSpec& spec_;
  std::vector<HostClass> own_;
};

}  // namespace

FleetSpec read_fleet(Context& context, const Yaml& node) {
  FleetSpec spec;
  Reader(context, spec).read(node);
  return spec;
}

std::expected<FleetSpec, std::vector<Diagnostic>> parse_fleet(std::string_view yaml, std::string_view source) {
  auto documents = read_yaml(yaml, source);
  if (!documents) return std::unexpected(std::vector{documents.error()});
  Context context{std::string(source)};
  FleetSpec spec;
  if (documents->size() != 1) {
    context.add(1, 1, documents->empty() ? "the file is empty: a fleet is described by 'fleet:' and 'regions:'"
                                         : "a fleet is one document");
  } else {
    spec = read_fleet(context, documents->front());
  }
  if (!context.diagnostics.empty()) return std::unexpected(std::move(context.diagnostics));
  return spec;
}

}  // namespace capstan::workload

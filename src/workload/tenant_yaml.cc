// How it works: key by key with yaml_fields.h; what no single key shows (a guarantee above the limit) is left
// to check().
#include "workload/tenant_yaml.h"

#include <algorithm>
#include <map>

#include "workload/quantity.h"
#include "workload/yaml_fields.h"

namespace capstan::workload {
namespace {

constexpr std::int64_t kGpusMax = 100'000'000;

void read_guarantee(Context& context, MappingReader& tenant, fleet::Capacity& out) {
  const Yaml* value = tenant.take("guaranteed");
  if (value == nullptr) return;
  MappingReader amounts(context, *value, "'guaranteed'");
  read_quantity(context, amounts, "cpus", parse_milli_cpus, out.milli_cpus);
  read_quantity(context, amounts, "memory", parse_bytes, out.memory_bytes);
  read_integer(context, amounts, "gpus", {0, kGpusMax}, out.gpus);
  amounts.finish();
}

void read_limit(Context& context, MappingReader& tenant, Tenant& out) {
  const Yaml* value = tenant.take("limit");
  if (value == nullptr) return;
  MappingReader amounts(context, *value, "'limit'");
  std::int64_t cpus = -1;
  std::int64_t memory = -1;
  std::int64_t gpus = -1;
  read_quantity(context, amounts, "cpus", parse_milli_cpus, cpus);
  read_quantity(context, amounts, "memory", parse_bytes, memory);
  read_integer(context, amounts, "gpus", {0, kGpusMax}, gpus);
  if (cpus >= 0) out.milli_cpus_max = cpus;
  if (memory >= 0) out.memory_bytes_max = memory;
  if (gpus >= 0) out.gpus_max = gpus;
  amounts.finish();
}

void read_cells(Context& context, MappingReader& tenant, std::vector<CellQuota>& out) {
  const Yaml* value = tenant.take("cells");
  if (value == nullptr) return;
  if (value->type != Yaml::Type::kSequence) {
    context.add(
        *value,
        fmt::format("'cells' must be a list such as [{{gpu_model: gb200, trays: 18, count: 2}}], not {}",
                    value->type_name()));
    return;
  }
  for (const Yaml& item : value->items) {
    MappingReader fields(context, item, "a cell");
    if (item.type != Yaml::Type::kMapping) continue;
    CellQuota& cell = out.emplace_back();
    cell.count = 1;
    read_text(context, fields, "gpu_model", cell.gpu_model);
    read_integer(context, fields, "trays", {1, 1024}, cell.trays);
    read_integer(context, fields, "count", {1, 1'000'000}, cell.count);
    fields.finish();
    if (fields.take("gpu_model") == nullptr) {
      context.add(item, "'gpu_model' is missing; write for example 'gpu_model: gb200'");
    }
    if (fields.take("trays") == nullptr) {
      context.add(item,
                  "'trays' is missing; a whole UltraServer is 'trays: 18', a segment of 16 'trays: 16'");
    }
  }
}

Tenant read_tenant(Context& context, const Yaml& node) {
  const std::size_t errors_before = context.diagnostics.size();
  Tenant out;
  MappingReader fields(context, node, "a tenant");
  if (node.type != Yaml::Type::kMapping) return out;
  read_name(context, fields, "name", true, out.name);
  read_name(context, fields, "parent", false, out.parent);
  read_integer(context, fields, "weight", {1, kTenantWeightMax}, out.weight);
  read_guarantee(context, fields, out.guaranteed);
  read_cells(context, fields, out.cells);
  read_limit(context, fields, out);
  read_bool(context, fields, "borrow", out.borrow);
  read_integer(context, fields, "priority_max", {kPriorityMin, kPriorityMax}, out.priority_max);
  fields.finish();
  if (context.diagnostics.size() > errors_before) return out;
  if (const auto checked = check(out); !checked) context.add(node, checked.error().message);
  return out;
}

void read_list(Context& context, const Yaml& list, std::vector<Tenant>& out, std::map<std::string, int>& lines) {
  for (const Yaml& item : list.items) {
    Tenant tenant = read_tenant(context, item);
    const auto [first, fresh] = lines.emplace(tenant.name, item.line);
    if (!fresh && !tenant.name.empty()) {
      context.add(item, fmt::format("tenant '{}' is given twice; the first is on line {}", tenant.name,
                                    first->second));
    }
    out.push_back(std::move(tenant));
  }
}

void read_document(Context& context, const Yaml& document, std::vector<Tenant>& out,
                   std::map<std::string, int>& lines) {
  MappingReader fields(context, document, "a document");
  if (document.type != Yaml::Type::kMapping) return;
  const Yaml* list = fields.take("tenants");
  fields.finish();
  if (list == nullptr || list->type != Yaml::Type::kSequence) {
    context.add(list == nullptr ? document : *list,
                "the file must hold a list: 'tenants:', then '- name: …' for each");
    return;
  }
  read_list(context, *list, out, lines);
}

}  // namespace

std::vector<Tenant> read_tenants(Context& context, const Yaml& list) {
  std::vector<Tenant> out;
  std::map<std::string, int> lines;
  if (list.type != Yaml::Type::kSequence) context.add(list, fmt::format("tenants must be a list, not {}", list.type_name()));
  read_list(context, list, out, lines);
  return out;
}

std::expected<std::vector<Tenant>, std::vector<Diagnostic>> parse_tenants(std::string_view yaml,
                                                                          const std::string& source) {
  const auto documents = read_yaml(yaml, source);
  if (!documents) return std::unexpected(std::vector<Diagnostic>{documents.error()});
  Context context{source};
  if (documents->empty()) context.add(1, 1, "the file holds no tenants; start with 'tenants:'");
  std::vector<Tenant> out;
  std::map<std::string, int> lines;
  for (const Yaml& document : *documents) read_document(context, document, out, lines);
  if (out.size() > kTenantsMax)
    context.add(1, 1, fmt::format("more than {} tenants in one file", kTenantsMax));
  if (context.diagnostics.empty()) return out;
  std::ranges::stable_sort(context.diagnostics, {},
                           [](const Diagnostic& d) { return std::pair(d.line, d.column); });
  return std::unexpected(std::move(context.diagnostics));
}

}  // namespace capstan::workload

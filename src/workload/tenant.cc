// How it works: one pass per direction. Members that are absent keep the defaults of the struct; a member
// that nobody asks for is refused, so that a limit is never silently lost.
#include "workload/tenant.h"

#include <algorithm>

#include "workload/spec.h"
#include "workload/yaml_fields.h"

namespace capstan::workload {
namespace {

std::unexpected<Error> wrong(std::string field, std::string message) {
  return std::unexpected(Error{Code::kInvalid, std::move(message), std::move(field)});
}

Result<void> check_amount(std::string_view name, std::int64_t guaranteed, std::optional<std::int64_t> limit) {
  if (guaranteed < 0) {
    return wrong(fmt::format("guaranteed.{}", name), fmt::format("guaranteed {} must not be negative", name));
  }
  if (!limit) return {};
  if (*limit < 0)
    return wrong(fmt::format("limit.{}", name), fmt::format("limit of {} must not be negative", name));
  if (guaranteed > *limit) {
    return wrong(fmt::format("guaranteed.{}", name),
                 fmt::format("guaranteed {} are more than the limit allows", name));
  }
  return {};
}

Result<void> check_cells(const std::vector<CellQuota>& cells) {
  if (cells.size() > kTenantCellKindsMax) {
    return wrong("cells", fmt::format("at most {} kinds of cell, not {}", kTenantCellKindsMax, cells.size()));
  }
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const CellQuota& cell = cells[i];
    const std::string field = fmt::format("cells[{}]", i);
    if (cell.gpu_model.empty())
      return wrong(field + ".gpu_model", "a cell needs the model of its GPUs, such as gb200");
    if (cell.trays < 1 || cell.trays > 1024) {
      return wrong(field + ".trays", fmt::format("a cell has 1 to 1024 trays, not {}", cell.trays));
    }
    if (cell.count < 1 || cell.count > 1'000'000) {
      return wrong(field + ".count",
                   fmt::format("between 1 and 1000000 cells can be guaranteed, not {}", cell.count));
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (cells[j].gpu_model == cell.gpu_model && cells[j].trays == cell.trays) {
        return wrong(field,
                     fmt::format("cells of {} trays of {} are given twice", cell.trays, cell.gpu_model));
      }
    }
  }
  return {};
}

Json optional_json(const std::optional<std::int64_t>& value) { return value ? Json(*value) : Json(); }

// Members of an object by type; the first thing that is wrong stays.
class Members {
 public:
  Members(const Json& json, std::string prefix) : json_(json), prefix_(std::move(prefix)) {
    if (!json.is_object()) miss("", fmt::format("must be an object, not {}", json.type_name()));
  }
  void integer(std::string_view key, std::int64_t& out) {
    if (const Json* value = take(key)) {
      if (value->is_int())
        out = value->as_int();
      else
        miss(key, fmt::format("must be an integer, not {}", value->type_name()));
    }
  }
  void integer(std::string_view key, std::optional<std::int64_t>& out) {
    std::int64_t value = 0;
    const Json* there = take(key);
    if (there == nullptr) return;
    integer(key, value);
    out = value;
  }
  void text(std::string_view key, std::string& out) {
    if (const Json* value = take(key)) {
      if (value->is_string())
        out = value->as_string();
      else
        miss(key, fmt::format("must be a string, not {}", value->type_name()));
    }
  }
  void boolean(std::string_view key, bool& out) {
    if (const Json* value = take(key)) {
      if (value->is_bool())
        out = value->as_bool();
      else
        miss(key, fmt::format("must be true or false, not {}", value->type_name()));
    }
  }
  const Json* take(std::string_view key) {
    known_.push_back(key);
    const Json* value = json_.find(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
  void miss(std::string_view key, std::string message) {
    if (error_) return;
    std::string field = prefix_ + std::string(key);
    error_ = Error{Code::kInvalid, fmt::format("'{}' {}", field, message), field};
  }
  Result<void> finish() {
    if (!error_) {
      for (const auto& [key, value] : json_.members()) {
        if (std::ranges::find(known_, key) == known_.end()) miss(key, "is unknown");
      }
    }
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  const Json& json_;
  std::string prefix_;
  std::vector<std::string_view> known_;
  std::optional<Error> error_;
};

Result<void> read_cells(const Json& json, std::vector<CellQuota>& out) {
  if (!json.is_array())
    return wrong("cells", fmt::format("'cells' must be an array, not {}", json.type_name()));
  for (const Json& item : json.items()) {
    Members members(item, fmt::format("cells[{}].", out.size()));
    CellQuota& cell = out.emplace_back();
    members.text("gpu_model", cell.gpu_model);
    members.integer("trays", cell.trays);
    members.integer("count", cell.count);
    CAPSTAN_CHECK(members.finish());
  }
  return {};
}

}  // namespace

Result<void> check(const Tenant& tenant) {
  if (!is_name(tenant.name)) {
    return wrong(
        "name",
        fmt::format("name '{}' must be 1 to {} of a-z, 0-9 and '-', with a letter or digit at both ends",
                    tenant.name, kNameLengthMax));
  }
  if (!tenant.parent.empty() && !is_name(tenant.parent)) {
    return wrong("parent", fmt::format("parent '{}' is no name of a tenant", tenant.parent));
  }
  if (tenant.weight < 1 || tenant.weight > kTenantWeightMax) {
    return wrong("weight",
                 fmt::format("weight is {}, but must be between 1 and {}", tenant.weight, kTenantWeightMax));
  }
  if (tenant.priority_max < kPriorityMin || tenant.priority_max > kPriorityMax) {
    return wrong("priority_max", fmt::format("priority_max is {}, but must be between {} and {}",
                                             tenant.priority_max, kPriorityMin, kPriorityMax));
  }
  if (tenant.guaranteed.gpu_milli != 0) return wrong("guaranteed.gpus", "guarantees are of whole GPUs");
  CAPSTAN_CHECK(check_amount("cpus", tenant.guaranteed.milli_cpus, tenant.milli_cpus_max));
  CAPSTAN_CHECK(check_amount("memory", tenant.guaranteed.memory_bytes, tenant.memory_bytes_max));
  CAPSTAN_CHECK(check_amount("gpus", tenant.guaranteed.gpus, tenant.gpus_max));
  return check_cells(tenant.cells);
}

Json to_json(const Tenant& tenant) {
  Json::Array cells;
  for (const CellQuota& cell : tenant.cells) {
    cells.push_back(
        Json::object({{"gpu_model", cell.gpu_model}, {"trays", cell.trays}, {"count", cell.count}}));
  }
  return Json::object({{"name", tenant.name},
                       {"parent", tenant.parent},
                       {"weight", tenant.weight},
                       {"guaranteed", Json::object({{"milli_cpus", tenant.guaranteed.milli_cpus},
                                                    {"memory_bytes", tenant.guaranteed.memory_bytes},
                                                    {"gpus", tenant.guaranteed.gpus}})},
                       {"cells", std::move(cells)},
                       {"limit", Json::object({{"milli_cpus", optional_json(tenant.milli_cpus_max)},
                                               {"memory_bytes", optional_json(tenant.memory_bytes_max)},
                                               {"gpus", optional_json(tenant.gpus_max)}})},
                       {"borrow", tenant.borrow},
                       {"priority_max", tenant.priority_max}});
}

Result<Tenant> tenant_from_json(const Json& json) {
  Tenant tenant;
  Members members(json, "");
  members.text("name", tenant.name);
  members.text("parent", tenant.parent);
  members.integer("weight", tenant.weight);
  if (const Json* guaranteed = members.take("guaranteed")) {
    Members amounts(*guaranteed, "guaranteed.");
    amounts.integer("milli_cpus", tenant.guaranteed.milli_cpus);
    amounts.integer("memory_bytes", tenant.guaranteed.memory_bytes);
    amounts.integer("gpus", tenant.guaranteed.gpus);
    CAPSTAN_CHECK(amounts.finish());
  }
  if (const Json* cells = members.take("cells")) CAPSTAN_CHECK(read_cells(*cells, tenant.cells));
  if (const Json* limit = members.take("limit")) {
    Members amounts(*limit, "limit.");
    amounts.integer("milli_cpus", tenant.milli_cpus_max);
    amounts.integer("memory_bytes", tenant.memory_bytes_max);
    amounts.integer("gpus", tenant.gpus_max);
    CAPSTAN_CHECK(amounts.finish());
  }
  members.boolean("borrow", tenant.borrow);
  members.integer("priority_max", tenant.priority_max);
  CAPSTAN_CHECK(members.finish());
  CAPSTAN_CHECK(check(tenant));
  return tenant;
}

}  // namespace capstan::workload

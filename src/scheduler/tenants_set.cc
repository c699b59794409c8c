// How it works: a draft says for every id, those to be made included, which value and which parent it would
// have. What is wrong with the draft is found in passes over all of it; only then are the nodes changed.
#include <algorithm>
#include <map>
#include <tuple>

#include "base/assert.h"
#include "scheduler/tenants.h"
#include "workload/quantity.h"

namespace capstan::scheduler {

struct Tenants::Draft {
  std::vector<const Tenant*> values;  // by id; nullptr: no such tenant
  std::vector<TenantId> parents;
  std::vector<TenantId> given;  // ids of the tenants that were given
};

namespace {

std::unexpected<Error> refuse(Code code, std::string field, std::string message) {
  return std::unexpected(Error{code, std::move(message), std::move(field)});
}

std::string amount_text(std::size_t resource, std::int64_t amount) {
  return static_cast<Resource>(resource) == Resource::kMemory ? workload::format_bytes(amount)
                                                              : workload::format_milli_cpus(amount);
}

// Every way up ends at the root in time.
Result<void> check_depths(std::span<const Tenant* const> values, std::span<const TenantId> parents) {
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (values[i] == nullptr) continue;
    int depth = 0;
    for (std::size_t at = i; at != index(kRootTenant); at = index(parents[at])) {
      if (++depth <= workload::kTenantDepthMax) continue;
      std::size_t up = index(parents[i]);
      for (std::size_t steps = 0; steps < values.size() && up != i && up != index(kRootTenant); ++steps) {
        up = index(parents[up]);
      }
      if (up == i) {
        return refuse(Code::kInvalid, "parent",
                      fmt::format("tenant '{}' would be above itself: its parent '{}' is below it",
                                  values[i]->name, values[i]->parent));
      }
      if (up == index(kRootTenant)) {
        return refuse(Code::kInvalid, "parent",
                      fmt::format("tenant '{}' would be deeper than {} levels", values[i]->name,
                                  workload::kTenantDepthMax));
      }
      break;  // it is below a cycle, which is reported for a tenant on it
    }
  }
  return {};
}

Result<void> check_guarantees(std::span<const Tenant* const> values, std::span<const TenantId> parents) {
  std::vector<Amounts> sums(values.size());
  for (std::size_t i = 1; i < values.size(); ++i) {
    const std::size_t parent = index(parents[i]);
    if (values[i] == nullptr || parent == index(kRootTenant)) continue;
    const Amounts own = amounts(values[i]->guaranteed);
    const Amounts whole = amounts(values[parent]->guaranteed);
    for (std::size_t r = 0; r < own.size(); ++r) {
      sums[parent][r] += own[r];
      if (sums[parent][r] <= whole[r]) continue;
      const std::string_view name = resource_name(static_cast<Resource>(r));
      return refuse(Code::kConflict, fmt::format("guaranteed.{}", name),
                    fmt::format("tenants below '{0}' would be guaranteed more {1} than '{0}' itself, which "
                                "is guaranteed {2}; raise that first",
                                values[parent]->name, name, amount_text(r, whole[r])));
    }
  }
  return {};
}

Result<void> check_cells(std::span<const Tenant* const> values, std::span<const TenantId> parents) {
  std::map<std::tuple<std::size_t, std::string_view, std::int64_t>, std::int64_t> sums;
  for (std::size_t i = 1; i < values.size(); ++i) {
    const std::size_t parent = index(parents[i]);
    if (values[i] == nullptr || parent == index(kRootTenant)) continue;
    for (const CellQuota& cell : values[i]->cells) {
      std::int64_t whole = 0;
      for (const CellQuota& above : values[parent]->cells) {
        if (above.gpu_model == cell.gpu_model && above.trays == cell.trays) whole = above.count;
      }
      auto& sum = sums[{parent, cell.gpu_model, cell.trays}];
      sum += cell.count;
      if (sum <= whole) continue;
      return refuse(Code::kConflict, "cells",
                    fmt::format("tenants below '{0}' would be guaranteed more cells of {1} trays of {2} than "
                                "'{0}' itself, which is guaranteed {3}; raise that first",
                                values[parent]->name, cell.trays, cell.gpu_model, whole));
    }
  }
  return {};
}

}  // namespace

Result<Tenants::Draft> Tenants::draft(std::span<const Tenant> tenants) const {
  Draft out;
  out.values.resize(nodes_.size());
  out.parents.resize(nodes_.size());
  for (std::size_t i = 1; i < nodes_.size(); ++i) {
    if (!nodes_[i].exists) continue;
    out.values[i] = &nodes_[i].value;
    out.parents[i] = nodes_[i].parent;
  }
  std::map<std::string_view, TenantId> names;  // of those given
  std::size_t free_left = free_.size();
  std::size_t existing = by_name_.size();
  for (const Tenant& tenant : tenants) {
    if (auto checked = workload::check(tenant); !checked) return std::unexpected(std::move(checked).error());
    auto id = find(tenant.name);
    if (!id) {
      if (++existing > workload::kTenantsMax) {
        return refuse(Code::kExhausted, "name",
                      fmt::format("there may be at most {} tenants", workload::kTenantsMax));
      }
      id = free_left > 0 ? free_[--free_left] : TenantId{static_cast<std::uint32_t>(out.values.size())};
      if (index(*id) == out.values.size()) {
        out.values.emplace_back();
        out.parents.emplace_back();
      }
    }
    if (!names.emplace(tenant.name, *id).second) {
      return refuse(Code::kInvalid, "name", fmt::format("tenant '{}' is given twice", tenant.name));
    }
    out.values[index(*id)] = &tenant;
    out.given.push_back(*id);
  }
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    TenantId parent = kRootTenant;
    if (const std::string& name = tenants[i].parent; !name.empty()) {
      const auto fresh = names.find(name);
      const auto known = fresh != names.end() ? std::optional(fresh->second) : find(name);
      if (!known) {
        return refuse(
            Code::kInvalid, "parent",
            fmt::format("tenant '{}' names the parent '{}', which does not exist", tenants[i].name, name));
      }
      parent = *known;
    }
    if (out.given[i] == kDefaultTenant && parent != kRootTenant) {
      return refuse(Code::kInvalid, "parent", "tenant 'default' stands at the top; it can have no parent");
    }
    out.parents[index(out.given[i])] = parent;
  }
  return out;
}

void Tenants::link(TenantId id, TenantId parent) {
  auto& children = node(parent).children;
  const auto by_name = [&](TenantId child) -> const std::string& { return name(child); };
  children.insert(std::ranges::lower_bound(children, name(id), {}, by_name), id);
  node(id).parent = parent;
}

Result<Tenants::Changed> Tenants::set(const Tenant& tenant) { return set_all(std::span(&tenant, 1)); }

Result<Tenants::Changed> Tenants::set_all(std::span<const Tenant> tenants) {
  CAPSTAN_TRY(const Draft next, draft(tenants));
  CAPSTAN_CHECK(check_depths(next.values, next.parents));
  CAPSTAN_CHECK(check_guarantees(next.values, next.parents));
  CAPSTAN_CHECK(check_cells(next.values, next.parents));
  Changed out;
  nodes_.resize(next.values.size());
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    const TenantId id = next.given[i];
    Node& changed = node(id);
    out.id = id;
    out.created = !changed.exists;
    changed.value = tenants[i];
    if (out.created) {
      changed.exists = true;
      by_name_.emplace(tenants[i].name, id);
      std::erase(free_, id);
    } else {
      std::erase(node(changed.parent).children, id);
    }
    link(id, next.parents[index(id)]);
  }
  rebuild(kRootTenant);
  out.warnings = warnings();
  return out;
}

Result<void> Tenants::remove(std::string_view name) {
  const auto id = find(name);
  if (!id) return fail(Code::kNotFound, "there is no tenant '{}'", name);
  if (*id == kDefaultTenant) return fail(Code::kConflict, "tenant 'default' is always there");
  const Node& gone = node(*id);
  if (!gone.children.empty()) {
    return fail(Code::kConflict, "tenant '{}' has tenants below it ('{}'); remove those first", name,
                this->name(gone.children.front()));
  }
  if (used(gone) != Amounts{})
    return fail(Code::kConflict, "tenant '{}' has work that holds resources", name);
  if (!gone.cells_own.empty()) return fail(Code::kConflict, "tenant '{}' has cells bound", name);
  const TenantId parent = gone.parent;
  std::erase(node(parent).children, *id);
  by_name_.erase(std::string(name));
  node(*id) = Node{};
  free_.push_back(*id);
  rebuild(kRootTenant);
  return {};
}

std::vector<std::string> Tenants::warnings() const {
  std::vector<std::string> out;
  if (fleet_ == Amounts{}) return out;
  Amounts sums{};
  for (const TenantId top : node(kRootTenant).children) {
    for (std::size_t r = 0; r < sums.size(); ++r) sums[r] += node(top).guaranteed[r];
  }
  for (std::size_t r = 0; r < sums.size(); ++r) {
    if (sums[r] <= fleet_[r]) continue;
    out.push_back(fmt::format("guarantees of {} {} exceed the fleet's {}", amount_text(r, sums[r]),
                              resource_name(static_cast<Resource>(r)), amount_text(r, fleet_[r])));
  }
  return out;
}

}  // namespace capstan::scheduler

// How it works: a node per tenant holds what it charged itself and, rolled up, what all below it hold; a
// charge walks to the root. `committed` of a node is what its subtree takes of guarantees: its own guaranteed
// work, and of every child the larger of the child's guarantee and the child's committed. Work is covered
// where `committed` stays within the guarantee; what is over goes to the parent as its own need. set() checks
// a draft (pointers by id) of the whole tree, then changes the nodes and sums everything again.
#include "scheduler/tenants.h"

#include <algorithm>

#include "base/assert.h"
#include "workload/quantity.h"

namespace capstan::scheduler {
namespace {

constexpr std::int64_t kAmountMax = std::int64_t{1} << 61;
constexpr std::uint64_t kShareUsedMax = (std::uint64_t{1} << 57) - 1;
constexpr std::size_t kResources = 3;
constexpr std::size_t kMemory = static_cast<std::size_t>(Resource::kMemory);
constexpr std::size_t kGuaranteed = static_cast<std::size_t>(Hold::kGuaranteed);
constexpr std::size_t kCell = static_cast<std::size_t>(Hold::kCell);
constexpr std::size_t kBorrowed = static_cast<std::size_t>(Hold::kBorrowed);

std::optional<std::int64_t> limit_of(const Tenant& tenant, std::size_t resource) {
  switch (static_cast<Resource>(resource)) {
    case Resource::kGpus:
      if (!tenant.gpus_max) return std::nullopt;
      return amounts({.gpus = *tenant.gpus_max})[0];
    case Resource::kCpus:
      return tenant.milli_cpus_max;
    case Resource::kMemory:
      return tenant.memory_bytes_max;
  }
  return std::nullopt;
}

std::string quantity(Resource resource, std::int64_t amount) {
  switch (resource) {
    case Resource::kGpus:
      return fmt::format("{} gpus", workload::format_milli_cpus(amount));
    case Resource::kCpus:
      return fmt::format("{} cpus", workload::format_milli_cpus(amount));
    case Resource::kMemory:
      return fmt::format("{} of memory", workload::format_bytes(amount));
  }
  return {};
}

// Used and total as shares count them: memory in KiB, rounded up.
std::uint64_t units(std::size_t resource, std::int64_t amount) {
  if (amount <= 0) return 0;
  auto out = static_cast<std::uint64_t>(amount);
  if (resource == kMemory) out = (out + 1023) / 1024;
  return std::min(out, kShareUsedMax);
}

Share dominant(const Amounts& used, const Amounts& fleet, std::int64_t weight) {
  Share out;
  for (std::size_t r = 0; r < kResources; ++r) {
    const Share share{units(r, used[r]), std::max<std::uint64_t>(units(r, fleet[r]), 1)};
    if (out < share) out = share;
  }
  out.of *= static_cast<unsigned>(weight);
  return out;
}

bool same_kind(const CellQuota& a, const CellQuota& b) {
  return a.trays == b.trays && a.gpu_model == b.gpu_model;
}

std::int64_t count_of(const std::vector<CellQuota>& cells, const CellQuota& kind) {
  const auto found =
      std::ranges::find_if(cells, [&](const CellQuota& cell) { return same_kind(cell, kind); });
  return found == cells.end() ? 0 : found->count;
}

}  // namespace

Amounts amounts(const Capacity& capacity) {
  const auto clamp = [](__int128 value) {
    return static_cast<std::int64_t>(std::clamp<__int128>(value, -kAmountMax, kAmountMax));
  };
  return {clamp(static_cast<__int128>(capacity.gpus) * 1000 + capacity.gpu_milli), clamp(capacity.milli_cpus),
          clamp(capacity.memory_bytes)};
}

Capacity to_capacity(const Amounts& amounts) {
  return {amounts[1], amounts[2], amounts[0] / 1000, amounts[0] % 1000};
}

std::string_view resource_name(Resource resource) {
  constexpr std::array<std::string_view, kResources> kNames{"gpus", "cpus", "memory"};
  return kNames[static_cast<std::size_t>(resource)];
}

std::string_view hold_name(Hold hold) {
  constexpr std::array<std::string_view, 3> kNames{"guaranteed", "cell", "borrowed"};
  return kNames[static_cast<std::size_t>(hold)];
}

Tenants::Tenants() {
  nodes_.resize(2);
  nodes_[index(kRootTenant)].exists = true;
  Node& first = node(kDefaultTenant);
  first.exists = true;
  first.value.name = "default";
  node(kRootTenant).children.push_back(kDefaultTenant);
  by_name_.emplace(first.value.name, kDefaultTenant);
  rebuild(kRootTenant);
}

std::optional<TenantId> Tenants::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

bool Tenants::under(TenantId id, TenantId ancestor) const {
  while (node(id).depth > node(ancestor).depth) id = node(id).parent;
  return id == ancestor;
}

std::vector<TenantId> Tenants::ids() const {
  std::vector<TenantId> out;
  std::vector<TenantId> stack{kRootTenant};
  while (!stack.empty()) {
    const TenantId id = stack.back();
    stack.pop_back();
    if (id != kRootTenant) out.push_back(id);
    const auto& children = node(id).children;
    stack.insert(stack.end(), children.rbegin(), children.rend());
  }
  return out;
}

std::vector<Tenant> Tenants::tenants() const {
  std::vector<Tenant> out;
  for (const TenantId id : ids()) out.push_back(tenant(id));
  return out;
}

void Tenants::set_fleet(const Capacity& total) {
  const Amounts fleet = amounts(total);
  if (fleet == fleet_) return;
  fleet_ = fleet;
  for (Node& each : nodes_) {
    if (each.exists) update_share(each);
  }
}

// Sums everything below `id` again, after a change of the tree.
void Tenants::rebuild(TenantId id) {
  Node& at = node(id);
  at.guaranteed = amounts(at.value.guaranteed);
  const Node& above = node(at.parent);
  const bool root = id == kRootTenant;
  at.depth = root ? 0 : above.depth + 1;
  for (std::size_t r = 0; r < kResources; ++r) {
    at.guarantees[r] = at.guaranteed[r] > 0 || (!root && above.guarantees[r]);
  }
  at.all = at.own;
  at.committed = at.own[kGuaranteed];
  for (const TenantId child_id : at.children) {
    rebuild(child_id);
    const Node& child = node(child_id);
    for (std::size_t r = 0; r < kResources; ++r) {
      for (std::size_t hold = 0; hold < kHolds; ++hold) at.all[hold][r] += child.all[hold][r];
      at.committed[r] += std::max(child.guaranteed[r], child.committed[r]);
    }
  }
  update_share(at);
}

Amounts Tenants::used(const Node& of) {
  Amounts out{};
  for (const Amounts& hold : of.all) {
    for (std::size_t r = 0; r < kResources; ++r) out[r] += hold[r];
  }
  return out;
}

Amounts Tenants::own(const Node& of) {
  Amounts out{};
  for (const Amounts& hold : of.own) {
    for (std::size_t r = 0; r < kResources; ++r) out[r] += hold[r];
  }
  return out;
}

void Tenants::update_share(Node& changed) {
  changed.share = dominant(used(changed), fleet_, changed.value.weight);
  changed.own_share = dominant(own(changed), fleet_, 1);
}

void Tenants::apply(TenantId id, const Amounts& amount, Hold hold, bool taken) {
  CAPSTAN_ASSERT(id != kRootTenant && node(id).exists);
  const auto kind = static_cast<std::size_t>(hold);
  Amounts change = amount;
  for (std::size_t r = 0; r < kResources; ++r) {
    CAPSTAN_ASSERT(amount[r] >= 0);
    if (!taken) change[r] = -change[r];
    node(id).own[kind][r] += change[r];
    CAPSTAN_ASSERT(node(id).own[kind][r] >= 0);
  }
  Amounts need = hold == Hold::kGuaranteed ? change : Amounts{};
  for (TenantId at = id;; at = node(at).parent) {
    Node& each = node(at);
    for (std::size_t r = 0; r < kResources; ++r) {
      each.all[kind][r] += change[r];
      const std::int64_t before = std::max(each.guaranteed[r], each.committed[r]);
      each.committed[r] += need[r];
      need[r] = std::max(each.guaranteed[r], each.committed[r]) - before;
    }
    if (at == kRootTenant) break;
    update_share(each);
  }
}

void Tenants::charge(TenantId id, const Capacity& amount, Hold hold) {
  apply(id, amounts(amount), hold, true);
}

void Tenants::credit(TenantId id, const Capacity& amount, Hold hold) {
  apply(id, amounts(amount), hold, false);
}

// Is `ask` within guarantees? `lead` is its leading resource.
bool Tenants::covered(TenantId id, const Amounts& ask, std::size_t lead) const {
  Amounts need{};
  for (std::size_t r = 0; r < kResources; ++r) {
    if (r == lead || node(id).guarantees[r]) need[r] = ask[r];
  }
  for (TenantId at = id; at != kRootTenant; at = node(at).parent) {
    const Node& each = node(at);
    for (std::size_t r = 0; r < kResources; ++r) {
      const std::int64_t before = std::max(each.guaranteed[r], each.committed[r]);
      need[r] = std::max(each.guaranteed[r], each.committed[r] + need[r]) - before;
    }
    if (need == Amounts{}) return true;
  }
  return false;
}

Admission Tenants::admission(TenantId id, const Capacity& ask) const {
  CAPSTAN_ASSERT(id != kRootTenant && node(id).exists);
  const Amounts asked = amounts(ask);
  std::size_t lead = 0;
  while (lead < kResources && asked[lead] <= 0) ++lead;
  if (lead == kResources) return {};
  std::optional<Admission> refusal;
  for (TenantId at = id; at != kRootTenant; at = node(at).parent) {
    const Node& each = node(at);
    const Amounts held = used(each);
    const auto test = [&](std::size_t r, std::int64_t limit, std::int64_t in_use, bool by_guarantee) {
      if (asked[r] <= 0 || in_use + asked[r] <= limit) return;
      const Verdict verdict = asked[r] > limit ? Verdict::kNever : Verdict::kNotNow;
      if (refusal && (refusal->verdict == Verdict::kNever || verdict == Verdict::kNotNow)) return;
      refusal = Admission{verdict, by_guarantee, at, static_cast<Resource>(r), limit, in_use, asked[r]};
    };
    for (std::size_t r = 0; r < kResources; ++r) {
      if (const auto limit = limit_of(each.value, r)) test(r, *limit, held[r], false);
    }
    if (each.value.borrow) continue;
    for (std::size_t r = lead; r < kResources; ++r) {
      if (r != lead && each.guaranteed[r] == 0) continue;
      test(r, each.guaranteed[r], held[r] - each.all[kCell][r], true);
    }
  }
  if (refusal) return *refusal;
  Admission out;
  out.verdict = covered(id, asked, lead) ? Verdict::kGuaranteed : Verdict::kBorrowed;
  return out;
}

std::string Tenants::words(const Admission& admission) const {
  const auto amount = [&](std::int64_t value) { return quantity(admission.resource, value); };
  switch (admission.verdict) {
    case Verdict::kGuaranteed:
      return "within guarantees";
    case Verdict::kBorrowed:
      return "beyond guarantees: borrowed from what others leave idle";
    case Verdict::kNever:
      return fmt::format(
          "tenant '{}' {} {}; {} are asked for", name(admission.by),
          admission.by_guarantee ? "may not borrow beyond its guarantee of" : "may hold at most",
          amount(admission.limit), amount(admission.asked));
    case Verdict::kNotNow:
      return fmt::format(
          "tenant '{}' {} {} and holds {}; {} more are asked for", name(admission.by),
          admission.by_guarantee ? "may not borrow beyond its guarantee of" : "may hold at most",
          amount(admission.limit), amount(admission.used), amount(admission.asked));
  }
  return {};
}

Usage Tenants::usage(TenantId id) const {
  const Node& at = node(id);
  return {to_capacity(used(at)), to_capacity(at.all[kGuaranteed]), to_capacity(at.all[kCell]),
          to_capacity(at.all[kBorrowed])};
}

Capacity Tenants::own_used(TenantId id) const { return to_capacity(own(node(id))); }

bool Tenants::less(TenantId a, TenantId b) const {
  if (a == b) return false;
  TenantId below_a = kRootTenant;  // where the way up from `a` came from
  TenantId below_b = kRootTenant;
  while (a != b) {
    const int depth_a = node(a).depth;
    const int depth_b = node(b).depth;
    if (depth_a >= depth_b) {
      below_a = a;
      a = node(a).parent;
    }
    if (depth_b >= depth_a) {
      below_b = b;
      b = node(b).parent;
    }
  }
  // One of them was above the other: its own work against the child, and first where they are equal.
  if (below_a == kRootTenant) return !(node(below_b).share < node(a).own_share);
  if (below_b == kRootTenant) return node(below_a).share < node(b).own_share;
  const Node& x = node(below_a);
  const Node& y = node(below_b);
  if (x.share < y.share) return true;
  if (y.share < x.share) return false;
  return x.value.name < y.value.name;
}

bool Tenants::may_bind(TenantId id, const CellQuota& kind) const {
  for (TenantId at = id; at != kRootTenant; at = node(at).parent) {
    if (cells_committed(at, kind) < count_of(node(at).value.cells, kind)) return true;
  }
  return false;
}

std::int64_t Tenants::cells_committed(TenantId id, const CellQuota& kind) const {
  std::int64_t out = bound(id, kind);
  for (const TenantId child : node(id).children) {
    out += std::max(count_of(node(child).value.cells, kind), cells_committed(child, kind));
  }
  return out;
}

void Tenants::bind_cell(TenantId id, const CellQuota& kind) {
  CAPSTAN_ASSERT(id != kRootTenant && node(id).exists);
  auto& cells = node(id).cells_own;
  const auto found =
      std::ranges::find_if(cells, [&](const CellQuota& cell) { return same_kind(cell, kind); });
  if (found != cells.end()) {
    ++found->count;
  } else {
    cells.push_back({kind.gpu_model, kind.trays, 1});
  }
}

void Tenants::unbind_cell(TenantId id, const CellQuota& kind) {
  auto& cells = node(id).cells_own;
  const auto found =
      std::ranges::find_if(cells, [&](const CellQuota& cell) { return same_kind(cell, kind); });
  CAPSTAN_ASSERT(found != cells.end());
  if (--found->count == 0) cells.erase(found);
}

std::int64_t Tenants::bound(TenantId id, const CellQuota& kind) const {
  return count_of(node(id).cells_own, kind);
}

}  // namespace capstan::scheduler

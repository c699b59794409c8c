// Tenants: the tree of those who share the fleet, what each holds, whether it may hold more, and whose turn
// it is.
//
//   Tenants tenants;                                       // "default" is there
//   tenants.set_fleet(inventory.total());                  // what shares are fractions of
//   CAPSTAN_TRY(auto changed, tenants.set({.name = "nlp", .weight = 2, .guaranteed = {.gpus = 64}}));
//   const auto answer = tenants.admission(changed.id, {.gpus = 8});
//   if (answer.admitted()) tenants.charge(changed.id, {.gpus = 8}, answer.hold());
//   else explain(tenants.words(answer));                   // "tenant 'nlp' may hold 64 gpus and holds 60; 8
//   more …"
//
// Guarantee. The leading resource of an ask (GPUs; without GPUs, CPUs; without CPUs, memory) must lie within
// the guarantee; the others count where the tenant or an ancestor guarantees any of them. What a tenant
// guarantees and has not passed on to its children is lent to those who ask first: an ask is guaranteed if at
// every level what is over is covered by the next one's remainder. So a tenant always gets its own guarantee,
// whatever its siblings hold. Limits bind at the tenant and at every ancestor. `borrow: false` binds a
// tenant, with all below it, to its guarantee. Cells (whole UltraServers, after HiveD, OSDI'20) are
// guaranteed beside that: this class counts how many are bound, the caller knows which; what runs on bound
// cells is charged as Hold::kCell.
//
// Turn: dominant-resource fair share (NSDI'11) by level: two tenants are compared where their paths part, by
// the largest used fraction of the fleet's CPUs, memory (in KiB) and GPUs over the weight; exact integers,
// ties by name. Work of a tenant that has children counts as one more child of weight 1.
//
// Threads: one owner.  Cost: charge, credit, admission, less: O(depth), no allocation; set, remove,
// set_fleet: O(tenants). About 500 bytes a tenant.  Failure: Result for what people ask; asserts when more is
// given back than was taken. Deterministic; ids are dense, stay until the tenant is removed, and decide
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "workload/tenant.h"

namespace capstan::scheduler {

using fleet::Capacity;
using workload::CellQuota;
using workload::Tenant;

enum class TenantId : std::uint32_t {};
constexpr std::size_t index(TenantId id) { return static_cast<std::size_t>(id); }
inline constexpr TenantId kRootTenant{0};     // holds no work itself; its name is empty
inline constexpr TenantId kDefaultTenant{1};  // "default"

enum class Resource : std::uint8_t { kGpus, kCpus, kMemory };
std::string_view resource_name(Resource resource);  // "gpus", "cpus", "memory"
// In order of Resource: thousandths of a GPU, thousandths of a CPU, bytes. Saturates at 2^61.
using Amounts = std::array<std::int64_t, 3>;
Amounts amounts(const Capacity& capacity);
Capacity to_capacity(const Amounts& amounts);

// As what a tenant holds something. Borrowed work makes room when somebody's guarantee is asked for.
enum class Hold : std::uint8_t { kGuaranteed, kCell, kBorrowed };
std::string_view hold_name(Hold hold);  // "guaranteed", "cell", "borrowed"

enum class Verdict : std::uint8_t {
  kGuaranteed,
  kBorrowed,
  kNotNow,  // a limit that would hold if less were used
  kNever,   // the ask alone is over the limit
};

// The answer to an ask. The rest says what refused: 0 if nothing did.
struct Admission {
  Verdict verdict = Verdict::kGuaranteed;
  bool by_guarantee = false;  // `by` may not borrow: `limit` is its guarantee
  TenantId by = kRootTenant;  // the tenant, or an ancestor
  Resource resource = Resource::kGpus;
  std::int64_t limit = 0;  // units as in Amounts
  std::int64_t used = 0;
  std::int64_t asked = 0;
  bool admitted() const { return verdict == Verdict::kGuaranteed || verdict == Verdict::kBorrowed; }
  Hold hold() const { return verdict == Verdict::kGuaranteed ? Hold::kGuaranteed : Hold::kBorrowed; }
  friend bool operator==(const Admission&, const Admission&) = default;
};

// A dominant share over a weight: a fraction that compares exactly.
struct Share {
  std::uint64_t used = 0;    // below 2^57
  unsigned __int128 of = 1;  // fleet × weight, below 2^71
  friend bool operator<(const Share& a, const Share& b) { return a.used * b.of < b.used * a.of; }
  friend bool operator==(const Share& a, const Share& b) { return a.used * b.of == b.used * a.of; }
};

// What a tenant and all below it hold.
struct Usage {
  Capacity used;  // all of it
  Capacity guaranteed;
  Capacity cell;
  Capacity borrowed;
  friend bool operator==(const Usage&, const Usage&) = default;
};

class Tenants {
 public:
  struct Changed {
    TenantId id{};  // of the last one given
    bool created = false;
    std::vector<std::string>
        warnings;  // "guarantees of 600 gpus exceed the fleet's 576": nothing is refused for it
  };

  Tenants();

  // Makes or changes a tenant; a changed parent moves it with all that it holds. Refused: kInvalid what
  // workload::check refuses, an unknown parent, a cycle, too deep a tree; kConflict guarantees of children
  // that exceed their parent's (field "guaranteed.gpus", …); kExhausted more than kTenantsMax.
  Result<Changed> set(const Tenant& tenant);
  // Several at once (each name once), all or none; only the tree that comes out must be right.
  Result<Changed> set_all(std::span<const Tenant> tenants);
  // Refused: kNotFound; kConflict "default", and one that has children, holds something or has cells bound.
  // Work that waits is the caller's to look for (Queue::waiting).
  Result<void> remove(std::string_view name);

  std::optional<TenantId> find(std::string_view name) const;
  const Tenant& tenant(TenantId id) const { return nodes_[index(id)].value; }
  const std::string& name(TenantId id) const { return tenant(id).name; }
  TenantId parent(TenantId id) const { return nodes_[index(id)].parent; }  // of a top tenant: kRootTenant
  bool has_children(TenantId id) const { return !nodes_[index(id)].children.empty(); }
  bool under(TenantId id, TenantId ancestor) const;  // or the same
  // Every tenant, parents before children, siblings by name: fit for set() one after another.
  std::vector<Tenant> tenants() const;
  std::vector<TenantId> ids() const;                     // in that order
  std::size_t ids_end() const { return nodes_.size(); }  // every id's index is below

  // Where the guarantees of the top tenants exceed the fleet, a line each.
  std::vector<std::string> warnings() const;

  // What shares are fractions of. Cheap if it is what it was.
  void set_fleet(const Capacity& total);

  void charge(TenantId id, const Capacity& amount, Hold hold);
  void credit(TenantId id, const Capacity& amount, Hold hold);
  Admission admission(TenantId id, const Capacity& ask) const;
  std::string words(const Admission& admission) const;
  Usage usage(TenantId id) const;
  Capacity own_used(TenantId id) const;  // without what is below

  // Cells. `kind.count` is not looked at.
  bool may_bind(TenantId id, const CellQuota& kind) const;
  void bind_cell(TenantId id, const CellQuota& kind);  // whether it may or not: replays bind what was bound
  void unbind_cell(TenantId id, const CellQuota& kind);
  std::int64_t bound(TenantId id, const CellQuota& kind) const;  // by itself, without what is below

  // Whose turn it is: a before b. A total order.
  bool less(TenantId a, TenantId b) const;
  Share share(TenantId id) const { return nodes_[index(id)].share; }
  Share own_share(TenantId id) const { return nodes_[index(id)].own_share; }  // as one more child of itself

 private:
  static constexpr std::size_t kHolds = 3;
  struct Node {
    Tenant value;
    TenantId parent = kRootTenant;
    bool exists = false;
    int depth = 0;                   // of top tenants 1
    std::vector<TenantId> children;  // by name
    Amounts guaranteed{};
    bool guarantees[3] = {};  // it or an ancestor guarantees some of the resource
    std::array<Amounts, kHolds> own{};
    std::array<Amounts, kHolds> all{};  // own and below
    // What of its parent's guarantee it takes at least: guaranteed work of its own, and of each child the
    // larger of this and the child's guarantee.
    Amounts committed{};
    std::vector<CellQuota> cells_own;  // `count`: bound by itself
    Share share;
    Share own_share;
  };
  struct Draft;  // the tree as it would become

  Node& node(TenantId id) { return nodes_[index(id)]; }
  const Node& node(TenantId id) const { return nodes_[index(id)]; }
  Result<Draft> draft(std::span<const Tenant> tenants) const;
  void link(TenantId id, TenantId parent);
  void rebuild(TenantId id);
  void update_share(Node& changed);
  void apply(TenantId id, const Amounts& amount, Hold hold, bool taken);
  bool covered(TenantId id, const Amounts& ask, std::size_t lead) const;
  static Amounts used(const Node& of);
  static Amounts own(const Node& of);
  std::int64_t cells_committed(TenantId id, const CellQuota& kind) const;

  std::vector<Node> nodes_;  // by id
  std::vector<TenantId> free_;
  std::map<std::string, TenantId, std::less<>> by_name_;
  Amounts fleet_{};
};

}  // namespace capstan::scheduler

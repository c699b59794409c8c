// How it works: a tree of heaps. Under fair share a group per tenant that has children, its items the
// children (groups or lanes) and, as one more child, the tenant's own lane; the first item of a group holds
// the highest priority, among those the lowest share. Under the other orders one group holds all lanes, by
// the key of their first entry. Inside a lane the first entries of its buckets are a heap too, copied when
// the lane is first looked at. So the next entry is found by going down along first items, and after an
// outcome only the items on that way move. Items keep shares as they were when they were last looked at: a
// charge that was not told cannot break a heap.
#include <algorithm>
#include <functional>

#include "base/assert.h"
#include "scheduler/queue.h"

namespace capstan::scheduler {

// For heaps, whose top is the last: is `a` tried after `b`?
bool Queue::Pass::later(const Item& a, const Item& b) const {
  if (!fair_) return b.key < a.key;
  if (a.key.minus_priority != b.key.minus_priority) return a.key.minus_priority > b.key.minus_priority;
  if (b.share < a.share) return true;
  if (a.share < b.share) return false;
  if (a.own != b.own) return b.own;
  return tenants_.name(a.tenant) > tenants_.name(b.tenant);
}

Queue::Pass::Pass(const Queue& queue, const Tenants& tenants)
    : queue_(queue),
      tenants_(tenants),
      fair_(queue.order_ == Order::kFairShare),
      inserted_(queue.inserted_),
      requests_left_(queue.requests()) {
  groups_.push_back({});
  if (fair_) {
    group_of_tenant_.assign(tenants.ids_end(), kNone);
    group_of_tenant_[index(kRootTenant)] = 0;
  }
  for (std::size_t i = 0; i < queue.lanes_.size(); ++i) {
    if (queue.lanes_[i].size == 0) continue;
    const TenantId tenant{static_cast<std::uint32_t>(i)};
    Item item{.key = queue.lanes_[i].heads.begin()->key, .share = {}, .tenant = tenant};
    item.lane = static_cast<std::uint32_t>(lanes_.size());
    std::uint32_t group = 0;
    if (fair_) {
      item.own = tenants.has_children(tenant);
      item.share = item.own ? tenants.own_share(tenant) : tenants.share(tenant);
      group = group_of(item.own ? tenant : tenants.parent(tenant));
    }
    lanes_.push_back({.tenant = tenant, .group = group, .open = false, .heads = {}});
    groups_[group].items.push_back(item);
  }
  make_heaps();
}

// The group of a tenant with children, made with those above it if need be.
std::uint32_t Queue::Pass::group_of(TenantId tenant) {
  if (group_of_tenant_[index(tenant)] != kNone) return group_of_tenant_[index(tenant)];
  const std::uint32_t parent = group_of(tenants_.parent(tenant));
  const auto made = static_cast<std::uint32_t>(groups_.size());
  groups_.push_back({.tenant = tenant, .parent = parent, .items = {}});
  group_of_tenant_[index(tenant)] = made;
  return made;
}

// Groups stand behind their parents, so from the back every group is whole when it becomes an item.
void Queue::Pass::make_heaps() {
  for (std::size_t i = groups_.size(); i-- > 0;) {
    Group& group = groups_[i];
    heapify(group);
    if (group.parent == kNone) continue;
    Item item{.key = group.items.front().key, .share = tenants_.share(group.tenant), .tenant = group.tenant};
    item.group = static_cast<std::uint32_t>(i);
    groups_[group.parent].items.push_back(item);
  }
}

void Queue::Pass::heapify(Group& group) {
  std::ranges::make_heap(group.items, [this](const Item& a, const Item& b) { return later(a, b); });
}

// Has the tenant, or one above it, been refused this request?
bool Queue::Pass::refused_by_tenant(TenantId tenant, std::uint32_t request) const {
  if (refused_tenants_.empty()) return false;
  for (TenantId at = tenant; at != kRootTenant; at = tenants_.parent(at)) {
    if (refused_tenants_.count(bucket_key(at, request)) > 0) return true;
  }
  return false;
}

// Does the entry still wait, and did it before the pass began?
bool Queue::Pass::offerable(const Head& head) const {
  const auto found = queue_.entries_.find(head.key.job);
  return found != queue_.entries_.end() && found->second.number < inserted_;
}

void Queue::Pass::pop_head(PassLane& lane) {
  std::ranges::pop_heap(lane.heads, std::greater{});
  lane.heads.pop_back();
}

// Goes on to the next entry of the first bucket.
void Queue::Pass::advance(PassLane& lane) {
  const Head done = lane.heads.front();
  std::ranges::pop_heap(lane.heads, std::greater{});
  if (const auto next = queue_.after(lane.tenant, done.request, done.key)) {
    lane.heads.back().key = *next;
    std::ranges::push_heap(lane.heads, std::greater{});
  } else {
    lane.heads.pop_back();
  }
}

// Makes the first head one that can be offered; false: the lane's first entry is another now, or none.
bool Queue::Pass::settle(PassLane& lane) {
  if (refused_by_tenant(lane.tenant, kAllRequests)) {
    lane.open = true;
    lane.heads.clear();
    return false;
  }
  if (!lane.open) {
    const auto& heads = queue_.lanes_[index(lane.tenant)].heads;
    lane.heads.assign(heads.begin(), heads.end());  // ascending: a heap already
    lane.open = true;
  }
  bool same = true;
  while (!lane.heads.empty()) {
    const Head& head = lane.heads.front();
    if (refused_requests_.count(head.request) > 0 || refused_by_tenant(lane.tenant, head.request)) {
      pop_head(lane);
    } else if (!offerable(head)) {
      advance(lane);
    } else {
      return same;
    }
    same = false;
  }
  return false;
}

// The lane is what the way down along first items leads to; its first entry or its tenant's shares changed.
void Queue::Pass::refresh_path(std::uint32_t lane) {
  const auto by_turn = [this](const Item& a, const Item& b) { return later(a, b); };
  const PassLane& from = lanes_[lane];
  bool empty = from.heads.empty();
  Key key = empty ? Key{} : from.heads.front().key;
  for (std::uint32_t at = from.group; at != kNone; at = groups_[at].parent) {
    auto& items = groups_[at].items;
    std::ranges::pop_heap(items, by_turn);
    Item& item = items.back();
    if (empty) {
      items.pop_back();
    } else {
      item.key = key;
      if (fair_) item.share = item.own ? tenants_.own_share(item.tenant) : tenants_.share(item.tenant);
      std::ranges::push_heap(items, by_turn);
    }
    empty = items.empty();
    if (!empty) key = items.front().key;
  }
}

// Takes over the shares of a tenant and those above it, wherever their items stand.
void Queue::Pass::recharge(TenantId tenant) {
  if (!fair_) return;
  const auto take_over = [&](TenantId group_tenant, TenantId item_tenant, bool own) {
    if (index(group_tenant) >= group_of_tenant_.size()) return;
    const std::uint32_t at = group_of_tenant_[index(group_tenant)];
    if (at == kNone) return;
    for (Item& item : groups_[at].items) {
      if (item.tenant != item_tenant || item.own != own) continue;
      item.share = own ? tenants_.own_share(item_tenant) : tenants_.share(item_tenant);
      heapify(groups_[at]);
      return;
    }
  };
  take_over(tenant, tenant, true);
  for (TenantId at = tenant; at != kRootTenant; at = tenants_.parent(at)) {
    take_over(tenants_.parent(at), at, false);
  }
}

std::optional<std::int64_t> Queue::Pass::next() {
  CAPSTAN_ASSERT(current_ == kNone);
  for (const TenantId tenant : charged_) recharge(tenant);
  charged_.clear();
  while (requests_left_ > 0 && !groups_[0].items.empty()) {
    std::uint32_t at = 0;
    while (groups_[at].items.front().lane == kNone) at = groups_[at].items.front().group;
    const std::uint32_t lane = groups_[at].items.front().lane;
    const Key shown = groups_[at].items.front().key;
    if (settle(lanes_[lane]) && lanes_[lane].heads.front().key == shown) {
      current_ = lane;
      return shown.job;
    }
    refresh_path(lane);
  }
  return std::nullopt;
}

void Queue::Pass::end(bool advanced) {
  CAPSTAN_ASSERT(current_ != kNone);
  if (advanced) advance(lanes_[current_]);
  refresh_path(current_);
  current_ = kNone;
}

void Queue::Pass::placed() { end(true); }

void Queue::Pass::skipped() { end(true); }

void Queue::Pass::refused_request() {
  CAPSTAN_ASSERT(current_ != kNone);
  if (refused_requests_.insert(lanes_[current_].heads.front().request).second) --requests_left_;
  pop_head(lanes_[current_]);
  end(false);
}

void Queue::Pass::refused_tenant(TenantId by) {
  CAPSTAN_ASSERT(current_ != kNone && tenants_.under(lanes_[current_].tenant, by));
  refused_tenants_.insert(bucket_key(by, lanes_[current_].heads.front().request));
  pop_head(lanes_[current_]);
  end(false);
}

void Queue::Pass::refused_tenant_all(TenantId by) {
  CAPSTAN_ASSERT(current_ != kNone && tenants_.under(lanes_[current_].tenant, by));
  refused_tenants_.insert(bucket_key(by, kAllRequests));
  lanes_[current_].heads.clear();
  end(false);
}

}  // namespace capstan::scheduler

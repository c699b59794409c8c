// How it works: entries lie in buckets, one per tenant and request, each an ordered set of keys. A lane
// (tenant) keeps the first key of each of its buckets in a second ordered set, so that the first entry of a
// tenant, and of a tenant per request, is at hand. A pass (queue_pass.cc) walks over lanes and buckets, never
// over entries.
#include "scheduler/queue.h"

#include <algorithm>
#include <array>

#include "base/assert.h"

namespace capstan::scheduler {
namespace {
constexpr std::array<std::string_view, 5> kOrderNames{"fair-share", "fifo", "sjf", "srtf", "srsf"};
}  // namespace

std::string_view order_name(Order order) { return kOrderNames[static_cast<std::size_t>(order)]; }

Result<Order> parse_order(std::string_view name) {
  for (std::size_t i = 0; i < kOrderNames.size(); ++i) {
    if (kOrderNames[i] == name) return static_cast<Order>(i);
  }
  return fail(Code::kInvalid, "unknown order '{}'; known are {}", name, fmt::join(kOrderNames, ", "));
}

Queue::Key Queue::key(const Entry& entry) const {
  const auto known = [](std::int64_t value) { return value > 0 ? value : INT64_MAX; };
  std::int64_t value = 0;
  if (order_ == Order::kSjf) value = known(entry.estimate_ms);
  if (order_ == Order::kSrtf) value = known(entry.remaining_ms);
  if (order_ == Order::kSrsf) value = known(entry.service);
  return {-entry.priority, value, entry.submitted_ms, entry.job};
}

void Queue::insert(const Entry& entry) {
  CAPSTAN_ASSERT(entry.tenant != kRootTenant && entry.request != UINT32_MAX);
  const bool fresh = entries_.emplace(entry.job, Stored{entry, inserted_++}).second;
  CAPSTAN_ASSERT(fresh);
  add(entry);
}

void Queue::add(const Entry& entry) {
  if (index(entry.tenant) >= lanes_.size()) lanes_.resize(index(entry.tenant) + 1);
  Lane& lane = lanes_[index(entry.tenant)];
  auto& bucket = buckets_[bucket_key(entry.tenant, entry.request)];
  const Key added = key(entry);
  if (bucket.empty()) {
    lane.heads.insert({added, entry.request});
  } else if (added < *bucket.begin()) {
    lane.heads.erase({*bucket.begin(), entry.request});
    lane.heads.insert({added, entry.request});
  }
  bucket.insert(added);
  ++lane.size;
  ++request_sizes_[entry.request];
}

bool Queue::erase(std::int64_t job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return false;
  const Entry entry = found->second.entry;
  entries_.erase(found);
  Lane& lane = lanes_[index(entry.tenant)];
  const auto bucket = buckets_.find(bucket_key(entry.tenant, entry.request));
  CAPSTAN_ASSERT(bucket != buckets_.end());
  auto& keys = bucket->second;
  const Key gone = key(entry);
  const bool first = *keys.begin() == gone;
  const std::size_t erased = keys.erase(gone);
  CAPSTAN_ASSERT(erased == 1);
  if (first) {
    lane.heads.erase({gone, entry.request});
    if (!keys.empty()) lane.heads.insert({*keys.begin(), entry.request});
  }
  if (keys.empty()) buckets_.erase(bucket);
  --lane.size;
  const auto size = request_sizes_.find(entry.request);
  if (--size->second == 0) request_sizes_.erase(size);
  return true;
}

void Queue::set_order(Order order) {
  if (order == order_) return;
  std::vector<std::int64_t> jobs;  // in a fixed order: every key is in a lane's bucket
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    for (const Head& head : lanes_[i].heads) {
      for (const Key& each : buckets_.at(bucket_key(TenantId{static_cast<std::uint32_t>(i)}, head.request))) {
        jobs.push_back(each.job);
      }
    }
  }
  order_ = order;
  buckets_.clear();
  request_sizes_.clear();
  lanes_.clear();
  for (const std::int64_t job : jobs) add(entries_.at(job).entry);
}

const Queue::Entry* Queue::find(std::int64_t job) const {
  const auto found = entries_.find(job);
  return found == entries_.end() ? nullptr : &found->second.entry;
}

std::size_t Queue::waiting(TenantId tenant) const {
  return index(tenant) < lanes_.size() ? lanes_[index(tenant)].size : 0;
}

std::size_t Queue::waiting_of_request(std::uint32_t request) const {
  const auto found = request_sizes_.find(request);
  return found == request_sizes_.end() ? 0 : found->second;
}

std::optional<Queue::Key> Queue::after(TenantId tenant, std::uint32_t request, const Key& after) const {
  const auto bucket = buckets_.find(bucket_key(tenant, request));
  if (bucket == buckets_.end()) return std::nullopt;
  const auto next = bucket->second.upper_bound(after);
  if (next == bucket->second.end()) return std::nullopt;
  return *next;
}

std::optional<std::size_t> Queue::position(std::int64_t job, const Tenants& tenants) const {
  const Entry* entry = find(job);
  if (entry == nullptr) return std::nullopt;
  const Key own = key(*entry);
  std::size_t before = 0;
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    const TenantId tenant{static_cast<std::uint32_t>(i)};
    if (lanes_[i].size == 0) continue;
    // Under fair share another tenant's entry is before it by priority, and at equal priority if it is its
    // turn.
    const bool by_turn = order_ == Order::kFairShare && tenant != entry->tenant;
    const bool turn = by_turn && tenants.less(tenant, entry->tenant);
    for (const Head& head : lanes_[i].heads) {
      for (const Key& each : buckets_.at(bucket_key(tenant, head.request))) {
        const bool earlier = by_turn ? each.minus_priority < own.minus_priority ||
                                           (turn && each.minus_priority == own.minus_priority)
                                     : each < own;
        if (!earlier) break;
        ++before;
      }
    }
  }
  return before;
}

std::vector<std::int64_t> Queue::heads(std::size_t n, const Tenants& tenants) const {
  std::vector<std::int64_t> out;
  Pass pass(*this, tenants);
  while (out.size() < n) {
    const auto job = pass.next();
    if (!job) break;
    out.push_back(*job);
    pass.skipped();
  }
  return out;
}

}  // namespace capstan::scheduler

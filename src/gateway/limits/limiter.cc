// How: one counter for each rule, with what is used and reserved in its current window. A caller's counters are
// looked up once and kept until the rules change. reserve() looks at all of them before it changes any, so a
// refusal leaves nothing behind. A window that has passed takes its reservations with it: settling them later
// changes nothing in the new one.
#include "gateway/limits/limiter.h"

#include <algorithm>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

using store::LimitRule;
using store::Subject;
using store::Unit;
using store::Window;

constexpr std::int64_t kRetryUnderWayMs = 1'000;  // when only requests under way stand in the way

bool applies(const LimitRule& rule, const Payer& payer) {
  if (!rule.model.empty() && rule.model != payer.model) return false;
  switch (rule.subject) {
    case Subject::kEveryone: return true;
    case Subject::kOrganisation: return rule.subject_id == payer.organisation;
    case Subject::kProject: return rule.subject_id == payer.project;
    case Subject::kKey: return rule.subject_id == payer.key;
  }
  return false;
}

}  // namespace

std::int64_t Amounts::of(Unit unit) const {
  switch (unit) {
    case Unit::kRequests: return requests;
    case Unit::kTokens: return input_tokens + output_tokens;
    case Unit::kInputTokens: return input_tokens;
    case Unit::kOutputTokens: return output_tokens;
    case Unit::kNanoDollars: return nano_dollars;
  }
  return 0;
}

std::size_t Limiter::CallerHash::of(std::int64_t o, std::int64_t p, std::int64_t k, std::string_view model) {
  const auto u = [](std::int64_t value) { return static_cast<std::uint64_t>(value); };
  return Prng::mix(Prng::mix(u(k) + (u(p) << 24) + (u(o) << 48)) ^ std::hash<std::string_view>{}(model));
}

bool Limiter::same_but_amount(const LimitRule& a, const LimitRule& b) {
  return a.window == b.window && a.unit == b.unit && a.subject == b.subject && a.subject_id == b.subject_id &&
         a.model == b.model;
}

void Limiter::set_rules(const std::vector<LimitRule>& rules, std::int64_t now_ms, const UsedBefore& used_before) {
  const std::lock_guard one_at_a_time(rules_mutex_);
  std::unordered_map<std::int64_t, std::shared_ptr<Counter>> kept;
  for (const LimitRule& rule : rules) {
    const auto known = rules_.find(rule.id);  // only set_rules changes rules_, so it may be read here
    if (known != rules_.end() && same_but_amount(known->second->rule, rule)) {
      kept[rule.id] = known->second;
      continue;
    }
    auto counter = std::make_shared<Counter>();
    counter->rule = rule;
    counter->window = window_of(rule.window, now_ms);
    if (rule.window != Window::kConcurrent) counter->used = used_before(rule, counter->window);
    kept[rule.id] = std::move(counter);
  }
  const std::lock_guard lock(mutex_);
  for (const LimitRule& rule : rules) kept[rule.id]->rule.amount = rule.amount;
  rules_ = std::move(kept);
  callers_.clear();
}

const Limiter::Counters& Limiter::counters_of(const Payer& payer) {
  const auto found = callers_.find(CallerView{payer.organisation, payer.project, payer.key, payer.model});
  if (found != callers_.end()) return found->second;
  if (callers_.size() >= kCallersMax) callers_.clear();
  Counters counters;
  for (const auto& [id, counter] : rules_) {
    if (applies(counter->rule, payer)) counters.push_back(counter);
  }
  // In the order of their ids, so that which limit a refusal names does not depend on a hash.
  std::ranges::sort(counters, {}, [](const auto& counter) { return counter->rule.id; });
  return callers_
      .emplace(CallerKey{payer.organisation, payer.project, payer.key, std::string(payer.model)}, std::move(counters))
      .first->second;
}

void Limiter::roll(Counter& counter, std::int64_t now_ms) {
  if (now_ms < counter.window.end_ms) return;  // a clock that went back stays in the newer window
  counter.window = window_of(counter.rule.window, now_ms);
  counter.used = 0;
  counter.reserved = 0;
}

std::optional<LimitRefusal> Limiter::refusal(const Counter& counter, std::int64_t wanted, std::int64_t now_ms) {
  const std::int64_t free = counter.rule.amount - counter.used - counter.reserved;
  if (wanted <= 0 || wanted <= free) return std::nullopt;  // what costs nothing passes a budget that is used up
  LimitRefusal out{counter.rule, counter.used, counter.reserved, wanted, 0};
  if (wanted > counter.rule.amount) return out;
  out.retry_after_ms = std::max<std::int64_t>(counter.window.end_ms - now_ms, 1);
  const bool under_way_only = wanted <= counter.rule.amount - counter.used;
  if (under_way_only) out.retry_after_ms = std::min(out.retry_after_ms, kRetryUnderWayMs);
  return out;
}

std::expected<Limiter::Reservation, LimitRefusal> Limiter::reserve(const Payer& payer, const Amounts& estimate,
                                                                   std::int64_t now_ms) {
  Reservation reservation;
  const std::lock_guard lock(mutex_);
  const Counters& counters = counters_of(payer);
  if (counters.empty()) return reservation;
  for (const auto& counter : counters) {
    roll(*counter, now_ms);
    if (auto refused = refusal(*counter, estimate.of(counter->rule.unit), now_ms))
      return std::unexpected(std::move(*refused));
  }
  reservation.entries_.reserve(counters.size());
  for (const auto& counter : counters) {
    const std::int64_t amount = estimate.of(counter->rule.unit);
    counter->reserved += amount;
    reservation.entries_.push_back({counter, counter->window.begin_ms, amount});
  }
  return reservation;
}

void Limiter::settle(Reservation& reservation, const Amounts& actual) {
  if (reservation.entries_.empty()) return;
  const std::lock_guard lock(mutex_);
  for (const Reservation::Entry& entry : reservation.entries_) {
    Counter& counter = *entry.counter;
    if (counter.window.begin_ms != entry.window_begin_ms) continue;
    counter.reserved -= entry.amount;
    if (counter.rule.window != Window::kConcurrent) counter.used += actual.of(counter.rule.unit);
  }
  reservation.entries_.clear();
}

std::optional<Remaining> Limiter::remaining(const Payer& payer, bool tokens, std::int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  std::optional<Remaining> tightest;
  for (const auto& counter : counters_of(payer)) {
    const LimitRule& rule = counter->rule;
    if (rule.window != Window::kMinute && rule.window != Window::kDay) continue;
    if (tokens ? rule.unit != Unit::kTokens : rule.unit != Unit::kRequests) continue;
    roll(*counter, now_ms);
    const Remaining one{rule.amount, std::max<std::int64_t>(rule.amount - counter->used - counter->reserved, 0),
                        std::max<std::int64_t>(counter->window.end_ms - now_ms, 0)};
    if (!tightest || one.remaining < tightest->remaining) tightest = one;
  }
  return tightest;
}

std::pair<std::int64_t, std::int64_t> Limiter::state_of(std::int64_t rule, std::int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  const auto found = rules_.find(rule);
  if (found == rules_.end()) return {0, 0};
  roll(*found->second, now_ms);
  return {found->second->used, found->second->reserved};
}

}  // namespace capstan::gateway

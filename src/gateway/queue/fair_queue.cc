// How: clocks count tokens times kScale over the weight. Each tier keeps its waiting flows sorted by clock, those
// that hold nothing apart, because only they may take the last places. A flow's clock changes only while it
// is out of the sets (take_out, change, put_in).
#include "gateway/queue/fair_queue.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::gateway {
namespace {

// At least the largest weight, so that a token moves every clock; a flow's clock then lasts for 2^49 tokens.
constexpr std::int64_t kScale = 16'384;
constexpr std::int64_t kTokensMax = 1 << 24;

std::int64_t virtual_cost(std::int64_t tokens, std::int64_t weight) {
  return std::clamp<std::int64_t>(tokens, 0, kTokensMax) * kScale / std::clamp<std::int64_t>(weight, 1, kScale);
}

std::size_t number(store::Tier tier) { return static_cast<std::size_t>(tier); }

}  // namespace

int FairQueue::newcomer_places() const {
  if (options_.newcomers >= 0) return std::min(options_.newcomers, options_.requests_max - 1);
  return options_.requests_max < 2 ? 0 : std::max(1, options_.requests_max / 8);
}

bool FairQueue::has_room(bool newcomer, std::int64_t tokens) const {
  if (running_ == 0) return options_.requests_max > 0;  // whatever its size, it can only ever run alone
  const int kept = newcomer ? 0 : newcomer_places();
  if (running_ >= options_.requests_max - kept) return false;
  if (options_.tokens_max == 0) return true;
  const std::int64_t tokens_kept = options_.tokens_max * kept / std::max(options_.requests_max, 1);
  return running_tokens_ + tokens <= options_.tokens_max - tokens_kept;
}

std::size_t FairQueue::flows() const {
  std::size_t count = 0;
  for (const Level& level : levels_) count += level.flows.size();
  return count;
}

void FairQueue::take_out(Level& level, std::int64_t tenant, const Flow& flow) {
  const Place place{flow.clock, tenant};
  level.waiting_new.erase(place);
  level.waiting_held.erase(place);
  level.idle.erase(place);
}

void FairQueue::put_in(Level& level, std::int64_t tenant) {
  const auto found = level.flows.find(tenant);
  Flow& flow = found->second;
  const Place place{flow.clock, tenant};
  if (!flow.waiting.empty()) {
    (flow.running == 0 ? level.waiting_new : level.waiting_held).insert(place);
  } else if (flow.running == 0) {
    if (flow.clock > level.present) {
      level.idle.insert(place);
    } else {
      level.flows.erase(found);  // the same as one that never was
    }
  }
  // Where nobody waits there is nothing to share, and all begin anew.
  while (!level.idle.empty() && (level.idle.begin()->first <= level.present || !level.waits())) {
    level.flows.erase(level.idle.begin()->second);
    level.idle.erase(level.idle.begin());
  }
}

// The flow is out of the sets.
void FairQueue::start(Level& level, std::int64_t tenant, const QueueItem& item) {
  Flow& flow = level.flows.at(tenant);
  level.present = std::max(level.present, flow.clock);
  present_ = std::max(present_, level.clock);
  flow.clock += virtual_cost(item.tokens, flow.weight);
  level.clock += virtual_cost(item.tokens, kTierWeights[number(item.tier)]);
  ++flow.running;
  ++running_;
  running_tokens_ += item.tokens;
  items_.emplace(item.id, item);
}

FairQueue::Entry FairQueue::enter(const QueueItem& item) {
  CAPSTAN_ASSERT(!items_.contains(item.id) && !places_.contains(item.id));
  Level& level = levels_[number(item.tier)];
  const auto known = level.flows.find(item.tenant);
  const bool newcomer = item.tier <= store::Tier::kDefault && (known == level.flows.end() || known->second.running == 0);
  const std::size_t held = known == level.flows.end() ? 0 : known->second.waiting.size();
  // Those that wait and could start have started, so who finds room passes nobody but those who find none.
  const bool starts = held == 0 && has_room(newcomer, item.tokens);
  if (!starts && held >= options_.waiting_max - std::min(waiting_, options_.waiting_max)) return Entry::kFull;

  if (!level.waits()) level.clock = std::max(level.clock, present_);
  Flow& flow = level.flows[item.tenant];
  take_out(level, item.tenant, flow);
  flow.weight = item.weight;
  if (flow.running == 0 && flow.waiting.empty()) flow.clock = std::max(flow.clock, level.present);
  if (starts) {
    start(level, item.tenant, item);
  } else {
    flow.waiting.push_back(item);
    places_.emplace(item.id, std::pair(item.tier, item.tenant));
    ++waiting_;
  }
  put_in(level, item.tenant);
  return starts ? Entry::kStarts : Entry::kWaits;
}

bool FairQueue::start_next(Started& started) {
  Level* chosen = nullptr;
  Place place;
  for (std::size_t tier = 0; tier < levels_.size(); ++tier) {
    Level& level = levels_[tier];
    if (!level.waits() || (chosen != nullptr && chosen->clock <= level.clock)) continue;
    const bool may_be_newcomer = static_cast<store::Tier>(tier) <= store::Tier::kDefault;
    const std::set<Place>* sets[] = {&level.waiting_new, &level.waiting_held};
    bool found = false;
    Place best;
    for (const auto* set : sets) {
      if (set->empty() || (found && best < *set->begin())) continue;
      const Flow& flow = level.flows.at(set->begin()->second);
      if (!has_room(may_be_newcomer && set == &level.waiting_new, flow.waiting.front().tokens)) continue;
      found = true;
      best = *set->begin();
    }
    if (found) {
      chosen = &level;
      place = best;
    }
  }
  if (chosen == nullptr) return false;
  Flow& flow = chosen->flows.at(place.second);
  take_out(*chosen, place.second, flow);
  const QueueItem item = flow.waiting.front();
  flow.waiting.pop_front();
  places_.erase(item.id);
  --waiting_;
  start(*chosen, place.second, item);
  put_in(*chosen, place.second);
  started.push_back(item.id);
  return true;
}

FairQueue::Started FairQueue::leave(std::uint64_t id, std::int64_t tokens) {
  Started started;
  if (const auto waits = places_.find(id); waits != places_.end()) {
    const auto [tier, tenant] = waits->second;
    Level& level = levels_[number(tier)];
    Flow& flow = level.flows.at(tenant);
    take_out(level, tenant, flow);
    std::erase_if(flow.waiting, [id = id](const QueueItem& item) { return item.id == id; });
    places_.erase(waits);
    --waiting_;
    put_in(level, tenant);
  } else if (const auto runs = items_.find(id); runs != items_.end()) {
    const QueueItem item = runs->second;
    items_.erase(runs);
    Level& level = levels_[number(item.tier)];
    Flow& flow = level.flows.at(item.tenant);
    take_out(level, item.tenant, flow);
    flow.clock += virtual_cost(tokens, flow.weight) - virtual_cost(item.tokens, flow.weight);
    const std::int64_t tier_weight = kTierWeights[number(item.tier)];
    level.clock += virtual_cost(tokens, tier_weight) - virtual_cost(item.tokens, tier_weight);
    --flow.running;
    --running_;
    running_tokens_ -= item.tokens;
    put_in(level, item.tenant);
  }
  while (start_next(started)) {
  }
  return started;
}

FairQueue::Started FairQueue::set_capacity(int requests_max, std::int64_t tokens_max) {
  options_.requests_max = requests_max;
  options_.tokens_max = tokens_max;
  Started started;
  while (start_next(started)) {
  }
  return started;
}

}  // namespace capstan::gateway

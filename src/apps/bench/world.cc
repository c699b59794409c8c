// How it works: apply() is timed as a whole: the decision and its events' text, as the journal keeps it.
// Effects go to a list; settle() turns each into the report that a worker would send.
#include "apps/bench/world.h"

#include "apps/bench/latencies.h"
#include "base/assert.h"

namespace capstan::apps::bench {

using controller::HostEffect;

Result<double> World::try_apply(Command command) {
  const controller::Input input{now_ms_, std::move(command)};
  const Stopwatch watch;
  outcome_ = controller_.apply(input);
  text_.clear();
  text_ += '[';
  for (const Json& event : outcome_.events) {
    if (text_.size() > 1) text_ += ',';
    event.dump_to(text_);
  }
  text_ += ']';
  const double ms = watch.ms();
  ++inputs_;
  events_ += static_cast<std::int64_t>(outcome_.events.size());
  effects_ += static_cast<std::int64_t>(outcome_.effects.size());
  controller_ms_ += ms;
  if (!outcome_.events.empty()) fingerprint_.add(text_);
  take_effects();
  if (record_) record_(input, outcome_);
  if (watch_) {
    for (const Json& event : outcome_.events) watch_(event);
  }
  if (!outcome_.answer) return std::unexpected(outcome_.answer.error());
  return ms;
}

double World::apply(Command command) {
  const auto ms = try_apply(std::move(command));
  if (!ms) fmt::print(stderr, "refused: {}\n", ms.error().message);
  CAPSTAN_ASSERT(ms.has_value());
  return *ms;
}

void World::take_effects() {
  for (const HostEffect& effect : outcome_.effects) {
    to_tell_.push_back(effect);
    if (effect.kind != HostEffect::Kind::kStart) continue;
    const controller::Workload* workload = state().find(effect.job);
    if (workload == nullptr || workload->spec.kind != workload::Kind::kJob) continue;
    auto& parts = parts_[effect.job];
    if (!parts.empty() && parts.front().attempt != effect.attempt) parts.clear();
    parts.push_back({effect.host, effect.attempt, effect.first, effect.count});
  }
}

double World::settle() {
  double ms = 0;
  while (!to_tell_.empty()) {
    const std::vector<HostEffect> now = std::move(to_tell_);
    to_tell_.clear();
    for (const HostEffect& effect : now) ms += tell(effect);
  }
  return ms;
}

// A host does what it is told: each rank has started, or ended as it was asked to.
double World::tell(const HostEffect& effect) {
  const controller::Workload* workload = state().find(effect.job);
  if (workload == nullptr) return 0;
  const bool start = effect.kind == HostEffect::Kind::kStart;
  controller::Reports reports{state().name(effect.host), {}, {}};
  if (workload->spec.kind == workload::Kind::kTasks && start) {
    reports.tasks.push_back({effect.job, effect.attempt, {{effect.first, effect.first + effect.count}}, {}});
    return apply(std::move(reports));
  }
  const bool service = workload->spec.kind == workload::Kind::kService;
  for (std::int64_t rank = effect.first; rank < effect.first + effect.count; ++rank) {
    const protocol::RankId id{effect.job, effect.attempt, rank};
    if (start) {
      reports.reports.push_back({1, id, protocol::RankStarted{1'000 + rank, 0}});
      if (service) reports.reports.push_back({1, id, protocol::RankReady{reports.host, 20'000}});
    } else {
      protocol::RankExited exit;
      exit.signal = 15;
      exit.stopped = true;
      reports.reports.push_back({1, id, std::move(exit)});
    }
  }
  return apply(std::move(reports));
}

double World::end(std::int64_t job) {
  const auto at = parts_.find(job);
  if (at == parts_.end()) return 0;
  const std::vector<Part> parts = std::move(at->second);
  parts_.erase(at);
  double ms = 0;
  for (const Part& part : parts) {
    controller::Reports reports{state().name(part.host), {}, {}};
    for (std::int64_t rank = part.first; rank < part.first + part.count; ++rank) {
      protocol::RankExited exit;
      exit.exit_code = 0;
      reports.reports.push_back({1, {job, part.attempt, rank}, std::move(exit)});
    }
    ms += apply(std::move(reports));
  }
  return ms;
}

void World::advance_to(std::int64_t time_ms) {
  while (controller_.next_deadline_ms() <= time_ms) {
    now_ms_ = std::max(now_ms_, controller_.next_deadline_ms());
    apply(controller::Tick{});
    settle();
  }
  now_ms_ = std::max(now_ms_, time_ms);
}

std::int64_t World::id_of(std::string_view name) const {
  const controller::Workload* workload = state().find(name);
  CAPSTAN_ASSERT(workload != nullptr);
  return workload->id;
}

}  // namespace capstan::apps::bench

// How it works: effects for hosts without a worker are kept for one turn, then answered as reports of those hosts.
#include "controller/driver_rehearsal.h"

#include <algorithm>
#include <utility>

namespace capstan::controller {
namespace {

bool is_rehearsed(const State& state, HostId host) {
  if (state.contacts.contains(host)) return false;
  const auto number = static_cast<std::int64_t>(fleet::index(host));
  return std::any_of(state.fleets.begin(), state.fleets.end(), [&](const State::Fleet& fleet) {
    return fleet.present && number >= fleet.first && number < fleet.first + fleet.hosts;
  });
}

Reports answer_of(const State& state, const HostEffect& effect) {
  Reports reports{state.name(effect.host), {}, {}};
  const Workload* workload = state.find(effect.job);
  if (workload == nullptr) return reports;
  const bool starts = effect.kind == HostEffect::Kind::kStart;
  if (starts && workload->spec.kind == workload::Kind::kTasks) {
    const std::pair range{effect.first, effect.first + effect.count};
    reports.tasks.push_back({effect.job, effect.attempt, {range}, {range}});
    return reports;
  }
  for (std::int64_t i = 0; i < effect.count; ++i) {
    protocol::Report report{1, {effect.job, effect.attempt, effect.first + i}, protocol::RankStarted{}};
    if (!starts) {
      protocol::RankExited exit;
      exit.exit_code = 0;
      exit.stopped = true;
      report.body = std::move(exit);
    }
    reports.reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace

void Rehearsal::started(const State& state) {
  effects_.clear();
  const bool any = std::any_of(state.fleets.begin(), state.fleets.end(), [](const auto& fleet) { return fleet.present; });
  for (std::uint32_t i = 0; any && i < state.inventory.hosts(); ++i) {
    const HostId host{i};
    if (state.inventory.idle(host) || !is_rehearsed(state, host)) continue;
    for (const HostEffect& effect : outstanding(state, host)) effects_.push_back(effect);
  }
}

void Rehearsal::take(const State& state, std::span<const HostEffect> effects) {
  for (const HostEffect& effect : effects) {
    if (is_rehearsed(state, effect.host)) effects_.push_back(effect);
  }
}

void Rehearsal::answer(const State& state, const Feed& feed) {
  for (const HostEffect& effect : std::exchange(effects_, {})) {
    Reports reports = answer_of(state, effect);
    if (!reports.reports.empty() || !reports.tasks.empty()) feed(std::move(reports));
  }
}

}  // namespace capstan::controller

// How it works: a task is picked by its place among all that run on the host; its run is cut in two there.
#include "apps/bench/host_tasks.h"

#include <algorithm>

namespace capstan::apps::bench {
namespace {

protocol::TaskReport& about(controller::Reports& reports, std::int64_t job, std::int64_t attempt) {
  for (auto& one : reports.tasks) {
    if (one.job == job && one.attempt == attempt) return one;
  }
  return reports.tasks.emplace_back(protocol::TaskReport{job, attempt, {}, {}});
}

}  // namespace

void HostTasks::take(const std::vector<controller::HostEffect>& effects) {
  for (const auto& effect : effects) {
    if (effect.kind != controller::HostEffect::Kind::kStart) continue;
    hosts_[fleet::index(effect.host)].fresh.push_back(
        {effect.job, effect.attempt, effect.first, effect.first + effect.count});
  }
}

controller::Reports HostTasks::report(const controller::State& state, std::size_t host, std::int64_t ends,
                                      std::int64_t& ended) {
  Host& here = hosts_[host];
  controller::Reports reports{state.name(fleet::HostId{static_cast<std::uint32_t>(host)}), {}, {}};
  for (; ends > 0 && here.tasks > 0; --ends, --here.tasks, ++ended) {
    auto place = static_cast<std::int64_t>(prng_.below(static_cast<std::uint64_t>(here.tasks)));
    auto at = here.running.begin();
    for (; place >= at->end - at->begin; ++at) place -= at->end - at->begin;
    const std::int64_t task = at->begin + place;
    about(reports, at->job, at->attempt).succeeded.emplace_back(task, task + 1);
    Run after = *at;
    after.begin = task + 1;
    at->end = task;
    const bool none_before = at->begin == at->end;
    if (after.begin == after.end) {
      if (none_before) here.running.erase(at);
    } else if (none_before) {
      *at = after;
    } else {
      here.running.insert(at + 1, after);
    }
  }
  for (const Run& run : here.fresh) {
    about(reports, run.job, run.attempt).started.emplace_back(run.begin, run.end);
    here.running.push_back(run);
    here.tasks += run.end - run.begin;
  }
  here.fresh.clear();
  return reports;
}

}  // namespace capstan::apps::bench

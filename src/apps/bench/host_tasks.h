// HostTasks: what runs on hosts, as their workers know it: filled by effects, drained by reports.
//
// A host's report says which tasks have started since its last one, and that its oldest ones have ended well.
// Threads: one owner.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "controller/controller.h"

namespace capstan::apps::bench {

class HostTasks {
 public:
  explicit HostTasks(std::size_t hosts) : hosts_(hosts) {}

  void take(const std::vector<controller::HostEffect>& effects) {
    for (const auto& effect : effects) {
      if (effect.kind != controller::HostEffect::Kind::kStart) continue;
      hosts_[fleet::index(effect.host)].push_back(
          {effect.job, effect.attempt, effect.first, effect.first + effect.count});
    }
  }
  // Of the host: the ends of at least `ends` of its oldest tasks that it has called started before, and what
  // has started since; empty if there is nothing to say. Adds the tasks that end to `ended`.
  controller::Reports report(const controller::State& state, std::size_t host, std::int64_t ends,
                             std::int64_t& ended) {
    auto& list = hosts_[host];
    controller::Reports reports{state.name(fleet::HostId{static_cast<std::uint32_t>(host)}), {}, {}};
    for (std::int64_t left = ends; left > 0 && !list.empty() && list.front().told; list.pop_front()) {
      const Run& run = list.front();
      of(reports, run).succeeded.emplace_back(run.begin, run.end);
      left -= run.end - run.begin;
      ended += run.end - run.begin;
    }
    for (auto at = list.rbegin(); at != list.rend() && !at->told; ++at) {
      of(reports, *at).started.emplace_back(at->begin, at->end);
      at->told = true;
    }
    return reports;
  }

 private:
  struct Run {
    std::int64_t job = 0;
    std::int64_t attempt = 1;
    std::int64_t begin = 0;
    std::int64_t end = 0;
    bool told = false;
  };
  static protocol::TaskReport& of(controller::Reports& reports, const Run& run) {
    for (auto& one : reports.tasks) {
      if (one.job == run.job && one.attempt == run.attempt) return one;
    }
    return reports.tasks.emplace_back(protocol::TaskReport{run.job, run.attempt, {}, {}});
  }

  std::vector<std::deque<Run>> hosts_;
};

}  // namespace capstan::apps::bench

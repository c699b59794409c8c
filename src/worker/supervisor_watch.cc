// The watching half of the supervisor.
//
// How it works: a pidfd per shim becomes readable when that process ends, whether or not it is our child, so
// one poll(2) watches adopted and own ranks alike. Ranks that are starting (waiting for shim.json) or ending
// (being cleaned up after a dead shim) are looked at again after a pause that doubles from 2 to 200 ms.
#include <poll.h>
#include <sys/wait.h>

#include <algorithm>

#include "base/log.h"
#include "sandbox/cgroup_files.h"
#include "worker/leftovers.h"
#include "worker/supervisor.h"

namespace capstan::worker {
namespace {

constexpr int kPauseMsMin = 2;
constexpr int kPauseMsMax = 200;
constexpr int kLooksUntilStarted = 10;  // about a second: shim.json without the hint that exec has succeeded

std::string exit_message(const Json& exit) {
  if (exit.get_bool("lost").value_or(false)) {
    return exit.get_string("message").value_or(
        "its shim ended without a record, so its exit code is unknown");
  }
  if (exit.get_bool("timed_out").value_or(false)) return "stopped: it ran longer than its timeout";
  if (exit.get_bool("oom").value_or(false)) return "the kernel killed it for exceeding its memory limit";
  if (const auto signal = exit.get_int("signal")) return fmt::format("ended by signal {}", *signal);
  return fmt::format("exited with code {}", exit.get_int("exit_code").value_or(-1));
}

}  // namespace

std::pair<std::string, Json> exit_report(const Json& exit) {
  if (const auto why = exit.get_string("start_error")) {
    return {
        "rank_start_failed",
        Json::object({{"message", *why}, {"retryable", exit.get_bool("start_retryable").value_or(false)}})};
  }
  Json fields = Json::object();
  const bool lost = exit.get_bool("lost").value_or(false);
  if (const auto signal = exit.get_int("signal")) {
    fields["signal"] = *signal;
  } else if (!lost) {
    fields["exit_code"] = exit.get_int("exit_code").value_or(-1);
  }
  fields["oom"] = exit.get_bool("oom").value_or(false);
  fields["lost"] = lost;
  fields["stopped"] = exit.get_bool("stopped").value_or(false) && !exit.get_bool("timed_out").value_or(false);
  fields["message"] = exit_message(exit);
  return {"rank_exited", std::move(fields)};
}

void Supervisor::watch(std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
    std::vector<RankId> watched;
    int timeout_ms = -1;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, rank] : ranks_) {
        if (rank.shim && rank.state != RankState::kEnding && rank.state != RankState::kExited) {
          polled.push_back({rank.shim.get(), POLLIN, 0});
          watched.push_back(id);
        }
      }
      timeout_ms = pause_ms();
    }
    (void)::poll(polled.data(), polled.size(), timeout_ms);
    std::uint64_t count = 0;
    if (polled[0].revents != 0) (void)!::read(wake_.get(), &count, sizeof count);

    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < watched.size(); ++i) {
      const auto known = ranks_.find(watched[i]);
      if (polled[i + 1].revents != 0 && known != ranks_.end()) look_at(known->first, known->second, true);
    }
    for (auto& [id, rank] : ranks_) {
      if (rank.launching || (rank.state != RankState::kStarting && rank.state != RankState::kEnding))
        continue;
      ++rank.looks;
      if (rank.state == RankState::kStarting) look_at(id, rank, false);
      if (rank.state == RankState::kEnding) end_lost(id, rank);
    }
  }
}

// The shortest pause that some rank needs; -1 if none waits to be looked at.
int Supervisor::pause_ms() const {
  int pause = -1;
  for (const auto& [id, rank] : ranks_) {
    if (rank.launching || (rank.state != RankState::kStarting && rank.state != RankState::kEnding)) continue;
    const int wanted = std::min(kPauseMsMin << std::min(rank.looks, 7), kPauseMsMax);
    pause = pause < 0 ? wanted : std::min(pause, wanted);
  }
  return pause;
}

// Brings a starting or running rank up to date with its records and its shim.
void Supervisor::look_at(const RankId& id, Rank& rank, bool shim_ended) {
  if (rank.launching || rank.state == RankState::kExited || rank.state == RankState::kEnding) return;
  if (rank.state == RankState::kStarting) {
    const auto record = store_.shim(id);
    if (record && !rank.shim) {
      open_shim(rank, static_cast<pid_t>(record->get_int("pid").value_or(-1)),
                static_cast<std::uint64_t>(record->get_int("start_ticks").value_or(0)));
      if (rank.shim && rank.stop_grace_ms) send_stop(rank, *rank.stop_grace_ms);
    }
    const auto exit = store_.exit(id);
    const bool failed = exit && exit->contains("start_error");
    if (record && !failed && (store_.started(id) || exit || rank.looks > kLooksUntilStarted)) {
      rank.child_pid = static_cast<pid_t>(record->get_int("child_pid").value_or(-1));
      rank.state = RankState::kRunning;
      rank.looks = 0;
      report_state(id, rank);
      if (changed_) changed_();
    }
  }
  if (rank.shim && !shim_ended) return;
  if (!rank.shim && store_.locked(id)) return;  // it lives, but has not written shim.json yet
  shim_gone(id, rank);
}

void Supervisor::shim_gone(const RankId& id, Rank& rank) {
  if (rank.own_child && rank.shim_pid > 0) ::waitpid(rank.shim_pid, nullptr, 0);
  rank.shim.reset();
  if (const auto exit = store_.exit(id)) return finish(id, rank, *exit);
  rank.state = RankState::kEnding;
  rank.looks = 0;
  log_warn("a shim ended without a record", "rank={} shim={}", id.text(), rank.shim_pid);
  end_lost(id, rank);
}

// Ends what the dead shim left behind; when nothing is left, records the rank as lost, or as never started.
void Supervisor::end_lost(const RankId& id, Rank& rank) {
  if (kill_leftovers(rank.cgroups, rank.mark) > 0) return;
  shim::ExitRecord end;
  end.ended_ms = shim::unix_time_ms();
  if (store_.shim(id)) {
    end.lost = true;
  } else {
    end.start_error = "the worker or the shim ended before the rank's program started";
    end.start_retryable = true;
  }
  for (const auto& cgroup : rank.cgroups) end.oom = end.oom || sandbox::cgroup_oom_kills(cgroup) > 0;
  if (const auto written = store_.write_exit(id, end); !written) {
    if (rank.looks % 50 == 0)
      log_warn("cannot record a lost rank", "rank={} why={}", id.text(), written.error().message);
    return;  // tried again; reported only once it is durable
  }
  auto exit = store_.exit(id);
  if (exit) finish(id, rank, *std::move(exit));
}

void Supervisor::finish(const RankId& id, Rank& rank, Json exit) {
  rank.state = RankState::kExited;
  rank.exit = std::move(exit);
  rank.shim.reset();
  sandbox::Cgroups::remove(rank.cgroups);
  report_state(id, rank);
  log_info("rank ended", "rank={} {}", id.text(), exit_report(rank.exit).second.dump());
  ended_.notify_all();
  if (changed_) changed_();
}

}  // namespace capstan::worker

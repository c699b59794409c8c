// How it works: a map of ranks under one mutex. Starting is done by the caller's thread outside the lock,
// guarded by an entry that is already in the map ("launching"). All that follows is seen by the watcher
// (supervisor_watch.cc).
#include "worker/supervisor.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <cerrno>

#include "base/file.h"
#include "base/log.h"

namespace capstan::worker {
namespace {

std::string_view state_name(RankState state) {
  switch (state) {
    case RankState::kStarting:
      return "starting";
    case RankState::kRunning:
    case RankState::kEnding:
      return "running";
    case RankState::kExited:
      return "exited";
  }
  return "exited";
}

Json strings(const std::vector<std::string>& texts) {
  Json out = Json::array();
  for (const auto& text : texts) out.push_back(text);
  return out;
}

}  // namespace

Supervisor::Supervisor(RankStore store, Launcher& launcher, ReportQueue& reports)
    : store_(store), launcher_(launcher), reports_(reports), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  watcher_ = std::jthread([this](std::stop_token stop) { watch(stop); });
}

Supervisor::~Supervisor() {
  watcher_.request_stop();
  wake();
  watcher_.join();
}

void Supervisor::on_change(std::function<void()> changed) {
  const std::lock_guard lock(mutex_);
  changed_ = std::move(changed);
}

void Supervisor::wake() {
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Supervisor::start(const Json& effect) {
  const auto spec = StartSpec::from_json(effect);
  const auto id = RankId::from_json(effect);
  if (!id) {
    log_error("start refused", "why={}", id.error().message);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = ranks_.find(*id); known != ranks_.end()) {
      report_state(*id, known->second);  // asked again: say again what is known
      return;
    }
    Rank& rank = ranks_[*id];
    rank.launching = true;
    rank.spec.id = *id;
    if (!spec) {
      rank.launching = false;
      fail_start(*id, rank, spec.error().message, false);
      return;
    }
    rank.spec = *spec;
  }
  launch(*id, *spec, effect);
  wake();
}

// Claim, prepare, spawn: outside the lock. Only a stop can touch the entry meanwhile (it leaves its wish
// there).
void Supervisor::launch(const RankId& id, const StartSpec& spec, const Json& effect) {
  const std::string mark = random_hex(16);
  auto prepared = launcher_.prepare(spec, mark);
  Json record = Json::object({{"effect", effect}, {"mark", mark}});
  if (prepared) record["cgroups"] = strings(prepared->record.cgroups);
  auto claim = store_.claim(id, record);

  const std::lock_guard lock(mutex_);
  Rank& rank = ranks_.at(id);
  rank.launching = false;
  rank.mark = mark;
  if (prepared) rank.cgroups = prepared->record.cgroups;
  if (!claim) return fail_start(id, rank, claim.error().message, claim.error().code != Code::kConflict);
  LaunchError error;
  if (!prepared) {
    error = prepared.error();
  } else if (rank.stop_grace_ms) {
    error = {"stopped before it started", true};
  } else {
    const auto pid = launcher_.start(id, *prepared, *claim);
    if (pid) {
      rank.own_child = true;
      open_shim(rank, *pid, 0);
      log_info("rank starting", "rank={} shim={}", id.text(), *pid);
      return;
    }
    error = pid.error();
  }
  shim::ExitRecord end;
  end.start_error = error.message;
  end.start_retryable = error.retryable;
  end.ended_ms = shim::unix_time_ms();
  if (const auto written = RankStore::write_exit(*claim, end); !written) {
    log_warn("cannot record a failed start", "rank={} why={}", id.text(), written.error().message);
  }
  fail_start(id, rank, error.message, error.retryable);
}

void Supervisor::fail_start(const RankId& id, Rank& rank, const std::string& message, bool retryable) {
  log_warn("rank did not start", "rank={} why={}", id.text(), message);
  finish(id, rank, Json::object({{"start_error", message}, {"start_retryable", retryable}}));
}

void Supervisor::open_shim(Rank& rank, pid_t pid, std::uint64_t ticks) {
  rank.shim_pid = pid;
  rank.shim = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  // An adopted pid may belong to a later process by now.
  if (rank.shim && ticks != 0 && shim::start_ticks(pid) != ticks) rank.shim.reset();
}

void Supervisor::stop(const RankId& id, std::optional<std::int64_t> grace_ms, std::string_view why) {
  const std::lock_guard lock(mutex_);
  const auto known = ranks_.find(id);
  if (known == ranks_.end()) {
    reports_.push(
        "rank_exited", id,
        Json::object({{"lost", true}, {"stopped", true}, {"message", "this host has no such rank"}}));
    return;
  }
  Rank& rank = known->second;
  if (rank.state == RankState::kExited) return report_state(id, rank);
  log_info("stopping rank", "rank={} why={}", id.text(), why);
  send_stop(rank, grace_ms.value_or(rank.spec.grace_ms));
}

void Supervisor::stop_all(std::string_view why) {
  const std::lock_guard lock(mutex_);
  for (auto& [id, rank] : ranks_) {
    if (rank.state == RankState::kExited) continue;
    log_info("stopping rank", "rank={} why={}", id.text(), why);
    send_stop(rank, rank.spec.grace_ms);
  }
}

// SIGTERM to the shim with the grace as its value; by pidfd, so no other process can be hit.
void Supervisor::send_stop(Rank& rank, std::int64_t grace_ms) {
  grace_ms = std::clamp<std::int64_t>(grace_ms, 0, INT32_MAX);
  rank.stop_grace_ms = std::min(rank.stop_grace_ms.value_or(grace_ms), grace_ms);
  if (!rank.shim) return;  // told when it appears
  siginfo_t info{};
  info.si_signo = SIGTERM;
  info.si_code = SI_QUEUE;
  info.si_pid = ::getpid();
  info.si_uid = ::getuid();
  info.si_value.sival_int = static_cast<int>(*rank.stop_grace_ms);
  if (::syscall(SYS_pidfd_send_signal, rank.shim.get(), SIGTERM, &info, 0) != 0 && errno != ESRCH) {
    log_error("cannot signal a shim", "shim={} errno={}", rank.shim_pid, errno);
  }
}

void Supervisor::forget(const RankId& id) {
  const std::lock_guard lock(mutex_);
  const auto known = ranks_.find(id);
  if (known != ranks_.end() && known->second.state != RankState::kExited) {
    log_warn("a rank that runs cannot be forgotten", "rank={}", id.text());
    return;
  }
  if (known != ranks_.end()) {
    sandbox::Cgroups::remove(known->second.cgroups);
    ranks_.erase(known);
  }
  if (const auto removed = store_.forget(id); !removed)
    log_warn("cannot forget a rank", "why={}", removed.error().message);
}

Result<void> Supervisor::adopt() {
  CAPSTAN_TRY(const auto ids, store_.list());
  for (const RankId& id : ids) adopt_rank(id);
  wake();
  return {};
}

void Supervisor::adopt_rank(const RankId& id) {
  const std::lock_guard lock(mutex_);
  Rank& rank = ranks_[id];
  rank.spec.id = id;
  if (const auto record = store_.spec(id)) {
    if (const Json* effect = record->find("effect")) {
      if (auto spec = StartSpec::from_json(*effect)) rank.spec = *std::move(spec);
    }
    rank.mark = record->get_string("mark").value_or("");
    if (const Json* cgroups = record->find("cgroups"); cgroups != nullptr && cgroups->is_array()) {
      for (const Json& directory : cgroups->items()) {
        if (directory.is_string()) rank.cgroups.push_back(directory.as_string());
      }
    }
  }
  if (const auto exit = store_.exit(id)) {
    finish(id, rank, *exit);
  } else {
    look_at(id, rank, false);
  }
  log_info("rank adopted", "rank={} state={}", id.text(), state_name(rank.state));
}

void Supervisor::report_state(const RankId& id, const Rank& rank) {
  if (rank.state == RankState::kExited) {
    auto [type, fields] = exit_report(rank.exit);
    reports_.push(type, id, std::move(fields));
  } else if (rank.state == RankState::kRunning) {
    Json fields = Json::object({{"pid", rank.child_pid}});
    if (rank.spec.port > 0) fields["port"] = rank.spec.port;
    reports_.push("rank_started", id, std::move(fields));
  }
}

std::vector<RankView> Supervisor::ranks() const {
  const std::lock_guard lock(mutex_);
  std::vector<RankView> views;
  for (const auto& [id, rank] : ranks_)
    views.push_back({id, rank.state, rank.spec.port, rank.spec.kind == "service", rank.spec.health});
  return views;
}

std::optional<RankState> Supervisor::state_of(const RankId& id) const {
  const std::lock_guard lock(mutex_);
  const auto known = ranks_.find(id);
  return known == ranks_.end() ? std::nullopt : std::optional(known->second.state);
}

Json Supervisor::ranks_json() const {
  const std::lock_guard lock(mutex_);
  Json out = Json::array();
  for (const auto& [id, rank] : ranks_) {
    out.push_back(id.with_state(state_name(rank.state)));
  }
  return out;
}

std::size_t Supervisor::unended() const {
  const std::lock_guard lock(mutex_);
  std::size_t count = 0;
  for (const auto& [id, rank] : ranks_) count += rank.state != RankState::kExited;
  return count;
}

bool Supervisor::wait_all_ended(std::int64_t timeout_ms) const {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] {
    return std::all_of(ranks_.begin(), ranks_.end(),
                       [](const auto& entry) { return entry.second.state == RankState::kExited; });
  });
}

}  // namespace capstan::worker

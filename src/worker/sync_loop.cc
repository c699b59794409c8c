// How it works: run() is a plain loop of blocking turns. A second thread, the nudger, waits for new reports
// and interrupts the turn in progress when it does not carry them. An interrupted turn loses nothing: reports
// are sent again until acknowledged, effects come again until they are taken over, and both are idempotent.
#include "worker/sync_loop.h"

#include <algorithm>

#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {

SyncLoop::SyncLoop(WorkerIdentity identity, ControllerLink& link, Supervisor& supervisor,
                   ReportQueue& reports, std::vector<RankRunner*> runners)
    : identity_(std::move(identity)), link_(link), supervisor_(supervisor), reports_(reports), runners_(std::move(runners)) {
  reports_.on_push([this] { wake(); });
}

void SyncLoop::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void SyncLoop::leave(bool deliver) {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    leave_by_ms_ = shim::monotonic_ms() + (deliver ? kDeliverMsMax : 0);
    changed_.notify_all();
  }
  link_.interrupt();
}

Json SyncLoop::request() const {
  Json request = Json::object({{"worker", identity_.worker},
                               {"incarnation", identity_.incarnation},
                               {"build", identity_.build},
                               {"epoch_seen", epoch_seen_},
                               {"resources", identity_.resources},
                               {"capabilities", identity_.capabilities},
                               {"logs_url", identity_.logs_url}});
  // The list first, the reports after it: what changes between the two is told by a report.
  if (full_) {
    Json ranks = supervisor_.ranks_json();
    for (const RankRunner* runner : runners_) runner->add_ranks(ranks);
    request["ranks"] = std::move(ranks);
  }
  request["effects_done"] = effects_done_;
  request["reports"] = Json(Json::Array(reports_.oldest()));
  return request;
}

void SyncLoop::run() {
  std::jthread nudger([this](std::stop_token stop) { nudge(stop); });
  std::int64_t retry_ms = kRetryMsMin;
  bool away = false;
  for (;;) {
    const std::int64_t sequence_before = reports_.last_sequence();
    const Json turn = request();
    const auto& reports = turn.find("reports")->items();
    {
      const std::lock_guard lock(mutex_);
      if (done(reports.empty(), away)) break;
      in_turn_ = true;
      turn_began_ms_ = shim::monotonic_ms();
      turn_has_reports_ = !reports.empty();
      turn_is_full_ = turn.contains("ranks");
      turn_last_sequence_ = reports.empty() ? sequence_before : reports.back().get_int("seq").value_or(0);
      changed_.notify_all();
    }
    const auto answer = link_.sync(turn);
    {
      const std::lock_guard lock(mutex_);
      in_turn_ = false;
    }
    if (answer) {
      if (away) log_info("the controller is back");
      away = false;
      retry_ms =
          take_answer(*answer, turn.contains("ranks")) ? kRetryMsMin : std::min(retry_ms * 2, kRetryMsMax);
      if (retry_ms > kRetryMsMin) rest(retry_ms);
      continue;
    }
    if (answer.error().code == Code::kCancelled) continue;
    if (!away) log_warn("the controller is away; ranks go on", "why={}", answer.error().message);
    away = true;
    full_ = true;  // it may be another controller when it is back
    rest(retry_ms);
    retry_ms = std::min(retry_ms * 2, kRetryMsMax);
  }
  nudger.request_stop();
  wake();
}

bool SyncLoop::done(bool nothing_to_report, bool away) const {
  return leaving_ && (nothing_to_report || away || shim::monotonic_ms() >= leave_by_ms_);
}

// Sleeps, but not longer than until leave(). False if leaving.
bool SyncLoop::rest(std::int64_t pause_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(pause_ms), [this] { return leaving_; });
  return !leaving_;
}

// False if the answer is to be ignored. `told_all`: the request had the full list of ranks.
bool SyncLoop::take_answer(const Json& answer, bool told_all) {
  const std::int64_t epoch = answer.get_int("epoch").value_or(0);
  if (epoch < epoch_seen_) {
    log_warn("an answer of an older controller is ignored", "epoch={} seen={}", epoch, epoch_seen_);
    return false;
  }
  full_ = answer.get_bool("full").value_or(false);
  if (epoch > epoch_seen_) {
    epoch_seen_ = epoch;
    effects_done_ = 0;
    full_ = full_ || !told_all;
  }
  reports_.acknowledge(answer.get_int("reports_acked").value_or(0));
  if (const Json* effects = answer.find("effects"); effects != nullptr && effects->is_array()) {
    for (const Json& effect : effects->items()) {
      apply(effect);
      effects_done_ = effect.get_int("id").value_or(effects_done_);
    }
  }
  if (answer.get_bool("shutdown").value_or(false)) shutdown_asked_ = true;
  return true;
}

void SyncLoop::apply(const Json& effect) {
  const std::string type = effect.get_string("type").value_or("");
  const auto id = RankId::from_json(effect);
  const auto any = [&](const auto& act) { return std::ranges::any_of(runners_, act); };
  if (!id) {
    log_error("an effect is not understood", "effect={}", effect.dump());
  } else if (type == "start_rank") {
    const auto runner = std::ranges::find_if(runners_, [&](const RankRunner* one) { return one->takes(effect); });
    if (runner != runners_.end()) return (*runner)->start(effect);
    supervisor_.start(effect);
  } else if (type == "stop_rank") {
    if (any([&](RankRunner* one) { return one->stop(*id, effect.get_int("grace_ms").value_or(0)); })) return;
    supervisor_.stop(*id, effect.get_int("grace_ms"), effect.get_string("why").value_or(""));
  } else if (type == "forget_rank") {
    if (any([&](RankRunner* one) { return one->forget(*id); })) return;
    supervisor_.forget(*id);
  } else {
    log_error("an effect is not known to this build", "type={}", type);
  }
}

void SyncLoop::nudge(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const std::int64_t now_ms = shim::monotonic_ms();
    const bool overdue = in_turn_ && leaving_ && now_ms >= leave_by_ms_;
    const bool late = in_turn_ && reports_.last_sequence() > turn_last_sequence_;
    if (!late && !overdue) {
      changed_.wait_for(lock, std::chrono::milliseconds(leaving_ ? kTurnMsMin : 1000));
      continue;
    }
    const std::int64_t age_ms = now_ms - turn_began_ms_;
    const std::int64_t age_ms_min = turn_is_full_ ? kFullTurnMsMin : turn_has_reports_ ? kTurnMsMin : 0;
    if (age_ms < age_ms_min) {
      changed_.wait_for(lock, std::chrono::milliseconds(age_ms_min - age_ms));
      continue;
    }
    turn_last_sequence_ = reports_.last_sequence();  // once per turn and report
    lock.unlock();
    link_.interrupt();
    lock.lock();
  }
}

}  // namespace capstan::worker

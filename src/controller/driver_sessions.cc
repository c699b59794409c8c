// How it works: one session a host. A call is held until its session has effects or the poll's time is over.
// Effects keep their place in the queue until a later call says that they were taken over.
#include "controller/driver_sessions.h"

#include <algorithm>

#include "base/log.h"

namespace capstan::controller {

void Sessions::enqueue(Session& session, protocol::Effect effect) {
  effect.id = session.next_effect_id++;
  session.effects.push_back(std::move(effect));
}

void Sessions::take(const State& state, protocol::SyncRequest request, Answer answer, std::int64_t now_ms,
                    const Feed& feed) {
  const std::string host = request.worker;
  const auto known = sessions_.find(host);
  if (known != sessions_.end() &&
      std::ranges::find(known->second.replaced, request.incarnation) != known->second.replaced.end()) {
    return answer(fail(Code::kConflict, "this worker of {} has been replaced by a newer one", host));
  }
  Session& session = sessions_[host];
  if (session.incarnation != request.incarnation) {
    Session fresh;
    fresh.replaced = std::move(session.replaced);
    if (!session.incarnation.empty()) fresh.replaced.push_back(session.incarnation);
    if (fresh.replaced.size() > kReplacedIncarnationsMax) fresh.replaced.pop_front();
    if (session.call)
      session.call->answer(fail(Code::kConflict, "this worker of {} has been replaced by a newer one", host));
    fresh.incarnation = request.incarnation;
    fresh.next_effect_id = request.effects_done + 1;
    session = std::move(fresh);
    log_info("worker joined", "host={} incarnation={} build={}", host, request.incarnation, request.build);
  }
  session.seen_ms = now_ms;
  feed(JoinHost{host, request.incarnation, request.build, request.logs_url, request.resources,
                request.capabilities});
  std::int64_t acked = 0;
  for (const auto& report : request.reports) acked = std::max(acked, report.seq);
  if (!request.reports.empty()) feed(Reports{host, request.reports});
  if (!session.synced && request.ranks) {
    Reconciliation agreed = reconcile(state, host, *request.ranks);
    for (auto& effect : agreed.effects) enqueue(session, std::move(effect));
    session.leftovers.insert(agreed.leftovers.begin(), agreed.leftovers.end());
    if (!agreed.lost.empty()) feed(Reports{host, std::move(agreed.lost)});
    session.synced = true;
  }
  // An exit is durable before this reaches the worker, so its record may go.
  for (const auto& report : request.reports) {
    if (!report.is_end()) continue;
    session.leftovers.erase(report.id);
    enqueue(session, {0, report.id, protocol::ForgetRank{}});
  }
  while (!session.effects.empty() && session.effects.front().id <= request.effects_done)
    session.effects.pop_front();
  if (session.synced && session.leftovers.empty()) feed(SetHealth{host, fleet::Health::kHealthy});
  if (session.call) reply(session, state, false);  // its connection has gone
  session.call = Call{std::move(answer), now_ms + limits_.long_poll_ms, acked, !request.reports.empty(),
                      !session.synced};
}

void Sessions::push(std::vector<HostEffect> effects) {
  for (HostEffect& one : effects) {
    const auto at = sessions_.find(one.host);
    // Who has not yet sent its list will get all that is due with the comparison.
    if (at != sessions_.end() && at->second.synced) enqueue(at->second, std::move(one.effect));
  }
}

void Sessions::reply(Session& session, const State& state, bool drained) {
  Call call = *std::move(session.call);
  session.call.reset();
  protocol::SyncAnswer answer;
  answer.epoch = state.epoch;
  answer.reports_acked = call.reports_acked;
  answer.full = call.full;
  const std::size_t count = std::min(session.effects.size(), protocol::kEffectsPerAnswerMax);
  answer.effects.assign(session.effects.begin(),
                        session.effects.begin() + static_cast<std::ptrdiff_t>(count));
  answer.shutdown = drained;
  session.told_shutdown = session.told_shutdown || drained;
  call.answer(std::move(answer));
}

void Sessions::answer_due(const State& state, bool drained, std::int64_t now_ms) {
  for (auto& [host, session] : sessions_) {
    if (!session.call) continue;
    const Call& call = *session.call;
    const bool tell_shutdown = drained && !session.told_shutdown;
    if (call.now || call.full || !session.effects.empty() || tell_shutdown || now_ms >= call.deadline_ms)
      reply(session, state, drained);
  }
}

void Sessions::detect(const State& state, std::int64_t now_ms, const Feed& feed) {
  std::vector<SetHealth> changes;
  for (const auto& [host, known] : state.hosts) {
    const auto at = sessions_.find(host);
    const std::int64_t silent_ms = now_ms - (at == sessions_.end() ? started_ms_ : at->second.seen_ms);
    if (silent_ms >= limits_.lost_after_ms) {
      if (known.health != fleet::Health::kLost) changes.push_back({host, fleet::Health::kLost});
      if (at != sessions_.end()) {  // when it is back, it begins with its list, and nothing that was decided
                                    // before counts
        at->second.synced = false;
        at->second.effects.clear();
      }
    } else if (silent_ms >= limits_.suspect_after_ms && known.health == fleet::Health::kHealthy) {
      changes.push_back({host, fleet::Health::kSuspect});
    }
  }
  for (const SetHealth& change : changes) {
    log_warn("a worker is silent", "host={} health={}", change.host, health_name(change.health));
    feed(change);
  }
}

std::int64_t Sessions::next_deadline_ms(const State& state) const {
  std::int64_t next_ms = kNever;
  for (const auto& [host, session] : sessions_) {
    if (session.call) next_ms = std::min(next_ms, session.call->deadline_ms);
  }
  for (const auto& [host, known] : state.hosts) {
    if (known.health == fleet::Health::kLost) continue;
    const auto at = sessions_.find(host);
    const std::int64_t seen_ms = at == sessions_.end() ? started_ms_ : at->second.seen_ms;
    next_ms = std::min(next_ms, seen_ms + (known.health == fleet::Health::kHealthy ? limits_.suspect_after_ms
                                                                                   : limits_.lost_after_ms));
  }
  return next_ms;
}

void Sessions::forgive(std::int64_t pause_ms) {
  started_ms_ += pause_ms;
  for (auto& [host, session] : sessions_) session.seen_ms += pause_ms;
}

void Sessions::reset(const Error& error, std::int64_t now_ms) {
  for (auto& [host, session] : sessions_) {
    if (session.call) session.call->answer(std::unexpected(error));
  }
  sessions_.clear();
  started_ms_ = now_ms;
}

}  // namespace capstan::controller

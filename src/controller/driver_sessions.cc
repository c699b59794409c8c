// How it works: one session a host. A call is held until its session has effects or the poll's time is over.
// Effects keep their place in the queue until a later call says that they were taken over. Deadlines of calls
// are a queue, for all wait equally long; hosts stand in two lists in order of when they were heard of, so
// only the heads of the lists are looked at.
#include "controller/driver_sessions.h"

#include <algorithm>

#include "base/log.h"

namespace capstan::controller {
namespace {

constexpr std::size_t kNamedInLogMax = 10;  // a line a host would hold up the turn when a network fails

std::unexpected<Error> replaced_error(const std::string& host) {
  return fail(Code::kConflict, "this worker of {} has been replaced by a newer one", host);
}

// Whether the state already has what the worker says about itself.
bool introduced(const State& state, HostId host, const protocol::SyncRequest& request) {
  const auto at = state.contacts.find(host);
  if (at == state.contacts.end()) return false;
  const Contact& contact = at->second;
  return contact.incarnation == request.incarnation && contact.build == request.build &&
         contact.logs_url == request.logs_url && contact.capabilities == request.capabilities &&
         state.inventory.capacity(host) == request.resources;
}

fleet::Health health_of(const State& state, const std::string& host) {
  const auto id = state.inventory.topology().find(host);
  return id ? state.inventory.host(*id).health : fleet::Health::kAbsent;
}

}  // namespace

Sessions::Session& Sessions::session_of(const std::string& host) {
  const auto [at, made] = sessions_.try_emplace(host);
  if (made) at->second.host = host;
  return at->second;
}

void Sessions::index(Session& session, HostId host) {
  const auto at = static_cast<std::size_t>(fleet::index(host));
  if (at >= by_host_.size()) by_host_.resize(at + 1);
  by_host_[at] = &session;
}

void Sessions::started(const State& state, std::int64_t now_ms) {
  for (const auto& [host, contact] : state.contacts) {
    const fleet::Health health = state.inventory.host(host).health;
    if (health == fleet::Health::kLost || health == fleet::Health::kAbsent) continue;
    Session& session = session_of(state.name(host));
    index(session, host);
    seen(session, now_ms);
  }
}

void Sessions::move_to(Session& session, std::list<Session*>& list) {
  if (session.watch != nullptr) {
    list.splice(list.end(), *session.watch, session.place);
  } else {
    list.push_back(&session);
    session.place = std::prev(list.end());
  }
  session.watch = &list;
}

void Sessions::seen(Session& session, std::int64_t now_ms) {
  session.seen_ms = now_ms - forgiven_ms_;
  move_to(session, fresh_);
}

void Sessions::look_at(Session& session) {
  if (!std::exchange(session.to_look_at, true)) look_at_.push_back(&session);
}

void Sessions::forget_what_was_due(Session& session) {
  session.synced = false;
  session.waiting.clear();
  session.sent.reset();
}

void Sessions::tell(Session& session, protocol::Effect effect) {
  session.waiting.push_back({{}, std::make_unique<protocol::Effect>(std::move(effect))});
}

// Another worker process on the same host: nothing that was due to the one before counts.
void Sessions::renew(Session& session, const protocol::SyncRequest& request) {
  if (!session.incarnation.empty()) session.replaced.push_back(session.incarnation);
  if (session.replaced.size() > kReplacedIncarnationsMax) session.replaced.erase(session.replaced.begin());
  if (session.call) session.call->answer(replaced_error(session.host));
  session.call.reset();
  forget_what_was_due(session);
  session.leftovers.clear();
  session.told_shutdown = false;
  session.incarnation = request.incarnation;
  session.next_effect_id = request.effects_done + 1;
  log_info("worker joined", "host={} incarnation={} build={}", session.host, request.incarnation,
           request.build);
}

void Sessions::compare(const State& state, Session& session, const protocol::SyncRequest& request,
                       const Feed& feed) {
  Reconciliation agreed = reconcile(state, session.host, *request.ranks);
  for (auto& effect : agreed.effects) tell(session, std::move(effect));
  session.leftovers.insert(agreed.leftovers.begin(), agreed.leftovers.end());
  if (!agreed.lost.empty()) {
    Reports lost;
    lost.host = session.host;
    lost.reports = std::move(agreed.lost);
    feed(std::move(lost));
  }
  session.synced = true;
}

void Sessions::acknowledge(Session& session, std::int64_t effects_done) {
  if (!session.sent) return;
  auto& sent = *session.sent;
  while (!sent.empty() && sent.front().id <= effects_done) sent.pop_front();
  if (sent.empty()) session.sent.reset();
}

void Sessions::take(const State& state, protocol::SyncRequest request, Answer answer, std::int64_t now_ms,
                    const Feed& feed) {
  const std::string host = request.worker;
  Session& session = session_of(host);
  if (std::ranges::find(session.replaced, request.incarnation) != session.replaced.end())
    return answer(replaced_error(host));
  if (session.incarnation != request.incarnation) renew(session, request);
  seen(session, now_ms);
  const auto known = state.inventory.topology().find(host);
  if (!known || !introduced(state, *known, request)) {
    feed(JoinHost{host, request.incarnation, request.build, request.logs_url, request.resources,
                  request.capabilities});
  }
  if (const auto id = state.inventory.topology().find(host)) index(session, *id);
  std::int64_t acked = 0;
  for (const auto& report : request.reports) acked = std::max(acked, report.seq);
  if (!request.reports.empty()) {
    Reports reports;
    reports.host = host;
    reports.reports = request.reports;
    feed(std::move(reports));
  }
  if (!session.synced && request.ranks) compare(state, session, request, feed);
  // An exit is durable before this reaches the worker, so its record may go.
  for (const auto& report : request.reports) {
    if (!report.is_end()) continue;
    session.leftovers.erase(report.id);
    tell(session, {0, report.id, protocol::ForgetRank{}});
  }
  acknowledge(session, request.effects_done);
  if (session.synced && session.leftovers.empty() && health_of(state, host) != fleet::Health::kHealthy)
    feed(SetHealth{host, fleet::Health::kHealthy});
  if (session.call) reply(session, state, false);  // its connection has gone
  session.call = Call{std::move(answer), ++last_call_, acked, !request.reports.empty(), !session.synced};
  deadlines_.push_back({now_ms + limits_.long_poll_ms, &session, last_call_});
  look_at(session);
}

void Sessions::push(std::span<const HostEffect> effects) {
  for (const HostEffect& one : effects) {
    const auto at = static_cast<std::size_t>(fleet::index(one.host));
    Session* session = at < by_host_.size() ? by_host_[at] : nullptr;
    // Who has not yet sent its list will get all that is due with the comparison.
    if (session == nullptr || !session->synced) continue;
    session->waiting.push_back({one, nullptr});
    look_at(*session);
  }
}

void Sessions::render_waiting(Session& session, const State& state) {
  if (session.waiting.empty()) return;
  if (!session.sent) session.sent = std::make_unique<std::deque<protocol::Effect>>();
  auto& sent = *session.sent;
  const auto add = [&](protocol::Effect effect) {
    effect.id = session.next_effect_id++;
    sent.push_back(std::move(effect));
  };
  std::size_t taken = 0;
  for (; taken < session.waiting.size() && sent.size() < protocol::kEffectsPerAnswerMax; ++taken) {
    Pending& pending = session.waiting[taken];
    if (pending.ready) {
      add(std::move(*pending.ready));
    } else {
      for (auto& effect : render(state, pending.compact)) add(std::move(effect));
    }
  }
  session.waiting.erase(session.waiting.begin(),
                        session.waiting.begin() + static_cast<std::ptrdiff_t>(taken));
  if (session.waiting.empty()) session.waiting.shrink_to_fit();
}

void Sessions::reply(Session& session, const State& state, bool drained) {
  Call call = *std::move(session.call);
  session.call.reset();
  render_waiting(session, state);
  protocol::SyncAnswer answer;
  answer.epoch = state.epoch;
  answer.reports_acked = call.reports_acked;
  answer.full = call.full;
  if (session.sent) {
    const auto& sent = *session.sent;
    const std::size_t count = std::min(sent.size(), protocol::kEffectsPerAnswerMax);
    answer.effects.assign(sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(count));
  }
  answer.shutdown = drained;
  session.told_shutdown = session.told_shutdown || drained;
  call.answer(std::move(answer));
}

void Sessions::answer_due(const State& state, bool drained, std::int64_t now_ms) {
  if (drained && !std::exchange(all_told_, true)) {
    for (auto& [host, session] : sessions_) look_at(session);
  }
  all_told_ = drained;
  for (Session* session : std::exchange(look_at_, {})) {
    session->to_look_at = false;
    if (!session->call) continue;
    const Call& call = *session->call;
    if (call.now || call.full || session->has_effects() || (drained && !session->told_shutdown))
      reply(*session, state, drained);
  }
  for (; !deadlines_.empty(); deadlines_.pop_front()) {
    const Deadline& next = deadlines_.front();
    if (next.passed()) continue;
    if (next.at_ms > now_ms) break;
    reply(*next.session, state, drained);
  }
}

void Sessions::detect(const State& state, std::int64_t now_ms, const Feed& feed) {
  const std::int64_t here_ms = now_ms - forgiven_ms_;
  std::vector<SetHealth> changes;
  while (!fresh_.empty() && here_ms - fresh_.front()->seen_ms >= limits_.suspect_after_ms &&
         changes.size() < kDetectedPerTurnMax) {
    Session& session = *fresh_.front();
    move_to(session, silent_);
    if (here_ms - session.seen_ms < limits_.lost_after_ms &&
        health_of(state, session.host) == fleet::Health::kHealthy)
      changes.push_back({session.host, fleet::Health::kSuspect});
  }
  while (!silent_.empty() && here_ms - silent_.front()->seen_ms >= limits_.lost_after_ms &&
         changes.size() < kDetectedPerTurnMax) {
    Session& session = *silent_.front();
    silent_.pop_front();
    session.watch = nullptr;
    // When it is back, it begins with its list, and nothing that was decided before counts.
    forget_what_was_due(session);
    const fleet::Health health = health_of(state, session.host);
    if (health != fleet::Health::kLost && health != fleet::Health::kAbsent)
      changes.push_back({session.host, fleet::Health::kLost});
  }
  for (std::size_t i = 0; i < changes.size(); ++i) {
    if (i < kNamedInLogMax)
      log_warn("a worker is silent", "host={} health={}", changes[i].host, health_name(changes[i].health));
    feed(changes[i]);
  }
  if (changes.size() > kNamedInLogMax)
    log_warn("more workers are silent", "hosts={}", changes.size() - kNamedInLogMax);
}

std::int64_t Sessions::next_deadline_ms() const {
  std::int64_t next_ms = deadlines_.empty() ? kNever : deadlines_.front().at_ms;
  if (!fresh_.empty())
    next_ms = std::min(next_ms, fresh_.front()->seen_ms + forgiven_ms_ + limits_.suspect_after_ms);
  if (!silent_.empty())
    next_ms = std::min(next_ms, silent_.front()->seen_ms + forgiven_ms_ + limits_.lost_after_ms);
  return next_ms;
}

void Sessions::reset(const Error& error) {
  for (auto& [host, session] : sessions_) {
    if (session.call) session.call->answer(std::unexpected(error));
  }
  by_host_.clear();
  look_at_.clear();
  deadlines_.clear();
  fresh_.clear();
  silent_.clear();
  sessions_.clear();
}

}  // namespace capstan::controller

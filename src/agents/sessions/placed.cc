// How it works: a table of keys. The manager tells of every end, whoever asked for it; the watcher only hurries those that
// are asked to end.
#include "agents/sessions/placed.h"

#include <signal.h>

#include <algorithm>

#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(50);
constexpr std::size_t kKeyBytesMax = 100;

Result<SessionTerms> terms_of(const Json& json) {
  Placed placed{.name = json.get_string("name").value_or(""),
                .tenant = json.get_string("tenant").value_or(""),
                .memory_bytes = json.get_int("memory_bytes").value_or(0),
                .milli_cpus = json.get_int("milli_cpus").value_or(0)};
  if (placed.name.empty() || placed.tenant.empty() || placed.memory_bytes <= 0 || placed.milli_cpus <= 0)
    return fail(Code::kInvalid, "a sandbox needs a name, a tenant, memory_bytes and milli_cpus");
  SessionTerms terms{.template_name = json.get_string("template").value_or("base"),
                     .metadata = {{"workload", placed.name}, {"tenant", placed.tenant}}};
  if (const Json* owner = json.find("owner")) {
    terms.owner.organisation = owner->get_int("organisation").value_or(terms.owner.organisation);
    terms.owner.project = owner->get_int("project").value_or(terms.owner.project);
  }
  const std::int64_t timeout_ms = json.get_int("timeout_ms").value_or(0);
  terms.timeout_ms = timeout_ms > 0 ? std::min(timeout_ms, kNoTimeoutMs) : kNoTimeoutMs;
  terms.placed = std::move(placed);
  if (const Json* env = json.find("env"); env != nullptr && env->is_object()) {
    for (const auto& [name, value] : env->members()) {
      if (!value.is_string()) return fail(Code::kInvalid, "env.{} is not a string", name);
      terms.env[name] = value.as_string();
    }
  }
  const Json* allow = json.find("allow");
  if (allow == nullptr || !allow->is_array()) return terms;
  terms.network.kind = allow->size() == 0 ? NetworkWish::Kind::kNone : NetworkWish::Kind::kListed;
  for (const Json& host : allow->items()) {
    if (!host.is_string()) return fail(Code::kInvalid, "allow is not a list of hosts");
    terms.network.hosts.push_back(host.as_string());
  }
  return terms;
}

std::string_view how_name(SessionEnd how) {
  return how == SessionEnd::kTimeout ? "timeout" : how == SessionEnd::kDied ? "died" : "asked";
}

}  // namespace

PlacedSessions::PlacedSessions() : watcher_([this](std::stop_token stop) { watch(stop); }) {}

Result<std::string> PlacedSessions::put(const std::string& key, const Json& json) {
  CAPSTAN_TRY(SessionTerms terms, terms_of(json));
  terms.placed->workload = parse_int(std::string_view(key).substr(0, key.find('-'))).value_or(0);
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = entries_.find(key); known != entries_.end()) {
      if (known->second.session.empty()) return fail(Code::kUnavailable, "sandbox {} is being made", key);
      return known->second.session;
    }
    if (key.empty() || key.size() > kKeyBytesMax || entries_.size() >= kPlacedMax)
      return fail(Code::kExhausted, "this host knows {} placed sandboxes, the most that it may", entries_.size());
    entries_[key];
  }
  // Its end may be told before this goes on: it is looked for again below.
  const auto made = manager_->create(std::move(terms));
  const std::lock_guard lock(mutex_);
  if (!made) {
    entries_.erase(key);
    return std::unexpected(made.error());
  }
  Entry& entry = entries_[key];
  entry.session = (*made)->id();
  if ((*made)->state() == Session::State::kEnded && !entry.over) {
    entry.over = true;
    entry.how = how_name(SessionEnd::kAsked);
  }
  return entry.session;
}

void PlacedSessions::end(const std::string& key, std::int64_t grace_ms) {
  std::string id;
  {
    const std::lock_guard lock(mutex_);
    const auto known = entries_.find(key);
    if (known == entries_.end() || known->second.over || known->second.session.empty()) return;
    const std::int64_t kill_ms = unix_ms() + std::max<std::int64_t>(grace_ms, 0);
    Entry& entry = known->second;
    entry.kill_ms = entry.kill_ms == 0 ? kill_ms : std::min(entry.kill_ms, kill_ms);
    id = entry.session;
  }
  for (const SessionPtr& session : manager_->all()) {
    if (session->id() != id) continue;
    if (session->state() == Session::State::kPaused) (void)session->resume(grace_ms);
    for (const ProcessPtr& process : session->processes()) process->signal(SIGTERM);
  }
  changed_.notify_all();
}

void PlacedSessions::forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto known = entries_.find(key);
  if (known != entries_.end() && known->second.over) entries_.erase(known);
}

Json PlacedSessions::list() const {
  const std::lock_guard lock(mutex_);
  Json out = Json::array();
  for (const auto& [key, entry] : entries_) {
    if (entry.session.empty()) continue;
    Json one = Json::object({{"key", key}, {"session", entry.session}, {"state", entry.over ? "ended" : "running"}});
    if (entry.over) one["how"] = entry.how;
    out.push_back(std::move(one));
  }
  return out;
}

void PlacedSessions::ended(const Session& session, SessionEnd how) {
  if (!session.terms().placed) return;
  const std::lock_guard lock(mutex_);
  for (auto& [key, entry] : entries_) {
    if (entry.session != session.id()) continue;
    entry.over = true;
    entry.how = how_name(how);
  }
}

bool PlacedSessions::holds(const std::string& session) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(entries_, [&](const auto& one) { return one.second.session == session; });
}

void PlacedSessions::watch(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto leaves = [](const auto& one) { return one.second.kill_ms > 0 && !one.second.over; };
  while (changed_.wait(lock, stop, [&] { return std::ranges::any_of(entries_, leaves); })) {
    std::map<std::string, std::int64_t> leaving;  // by session
    for (const auto& one : entries_) {
      if (leaves(one)) leaving[one.second.session] = one.second.kill_ms;
    }
    lock.unlock();
    const std::int64_t now_ms = unix_ms();
    for (const SessionPtr& session : manager_->all()) {
      const auto found = leaving.find(session->id());
      if (found == leaving.end()) continue;
      if (session->processes().empty() || now_ms >= found->second)
        (void)manager_->end(session->id(), session->terms().owner);
    }
    lock.lock();
    changed_.wait_for(lock, stop, kLookEvery, [] { return false; });
  }
}

void PlacedSessions::add_routes(http::Router& router) {
  const auto grace_of = [](const http::Request& request) {
    return parse_int(request.query_value("grace_ms").value_or("")).value_or(0);
  };
  router.add("PUT", "/host/placed/{key}", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const auto body = Json::parse(request.body);
    const auto made = body ? put(request.param("key"), *body) : Result<std::string>(std::unexpected(body.error()));
    if (made) return writer->respond(http::Response::json(200, Json::object({{"session", *made}})));
    // A start that may succeed another time, or elsewhere, is told apart by its status.
    const Code code = made.error().code;
    const bool not_now = code == Code::kExhausted || code == Code::kIo || code == Code::kConflict;
    const int status = code == Code::kUnavailable ? 503 : not_now ? 429 : 400;
    writer->respond(http::Response::json(status, Json::object({{"message", made.error().message}})));
  });
  router.add("GET", "/host/placed", [this](const http::Request&, const http::ResponseWriterPtr& writer) {
    writer->respond(http::Response::json(200, Json::object({{"placed", list()}})));
  });
  router.add("DELETE", "/host/placed/{key}",
             [this, grace_of](const http::Request& request, const http::ResponseWriterPtr& writer) {
               if (request.query_value("forget"))
                 forget(request.param("key"));
               else
                 end(request.param("key"), grace_of(request));
               writer->respond({.status = 204});
             });
}

}  // namespace capstan::agents

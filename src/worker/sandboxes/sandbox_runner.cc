// How it works: a record is written before anything is asked of the session host, whose answers are the same however often
// it is asked. What the host lists is compared with what should be there, a few times a second.
#include "worker/sandboxes/sandbox_runner.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

constexpr int kRetryMs = 200;

Descriptor open_records(const DataDirectory& data) {
  auto directory = open_own_directory(data.worker_fd(), "sandboxes", 0700);
  if (!directory) log_error("records of sandboxes cannot be kept", "why={}", directory.error().message);
  return directory ? std::move(*directory) : Descriptor();
}

// What the session host is asked for.
Json terms_of(const Json& effect) {
  Json terms = *effect.find("session");
  for (const char* name : {"name", "tenant"}) terms[name] = effect.get_string(name).value_or("");
  if (const Json* env = effect.find("env")) terms["env"] = *env;
  const Json* resources = effect.find("resources");
  for (const char* name : {"memory_bytes", "milli_cpus"})
    terms[name] = resources != nullptr ? resources->get_int(name).value_or(0) : 0;
  return terms;
}

Json start_failed(const std::string& why, bool retryable) {
  return Json::object({{"message", why}, {"retryable", retryable}});
}
Json lost(const std::string& why) { return Json::object({{"lost", true}, {"message", why}}); }

// How an end that the session host tells of is reported.
Json exit_of(const std::string& how, bool stopped) {
  if (how == "died") return Json::object({{"exit_code", 1}, {"message", "its sandbox died"}, {"stopped", stopped}});
  if (stopped) return Json::object({{"exit_code", 0}, {"message", "stopped"}, {"stopped", true}});
  return Json::object({{"exit_code", 0}, {"message", how == "timeout" ? "its time is over" : "a client ended it"}});
}

}  // namespace

SandboxRunner::SandboxRunner(const DataDirectory& data, SandboxHost& host, ReportQueue& reports)
    : directory_(open_records(data)), host_(host), reports_(reports) {}

SandboxRunner::~SandboxRunner() {
  looker_.request_stop();
  for (auto& maker : makers_) maker.request_stop();
  changed_.notify_all();
}

Result<void> SandboxRunner::adopt() {
  CAPSTAN_TRY(const auto names, names_below(directory_.get()));
  const std::lock_guard lock(mutex_);
  for (const std::string& name : names) {
    if (!name.ends_with(".json")) continue;
    const auto text = read_below(directory_.get(), name);
    const auto json = text ? Json::parse(*text) : fail(Code::kCorrupt, "unreadable");
    const Json* effect = json ? json->find("effect") : nullptr;
    const auto id = effect != nullptr ? RankId::from_json(*effect) : fail(Code::kCorrupt, "no effect");
    if (!id || effect->find("session") == nullptr) {
      log_warn("a sandbox's record is not understood", "file={}", name);
      continue;
    }
    One& one = all_[*id];
    one.effect = *effect;
    one.session = json->get_string("session").value_or("");
    one.began_ms = shim::monotonic_ms();
    if (const Json* exit = json->find("exit")) {
      one.report = json->get_string("report").value_or("rank_exited");
      one.exit = *exit;
    } else if (one.session.empty()) {
      waiting_.push_back(*id);
    }
    tell(*id, one);
    log_info("sandbox adopted", "rank={} session={}", id->text(), one.session);
  }
  for (std::size_t i = 0; i < kStartsAtOnceMax; ++i) makers_.emplace_back([this](std::stop_token stop) { make(stop); });
  looker_ = std::jthread([this](std::stop_token stop) { look(stop); });
  return {};
}

void SandboxRunner::start(const Json& effect) {
  const auto id = RankId::from_json(effect);
  if (!id) return log_error("a sandbox is not understood", "why={}", id.error().message);
  const std::lock_guard lock(mutex_);
  if (const auto known = all_.find(*id); known != all_.end()) return tell(*id, known->second);
  One& one = all_[*id];
  one.effect = effect;
  one.began_ms = shim::monotonic_ms();
  if (const auto saved = save(*id, one); !saved)
    return end(*id, one, "rank_start_failed", start_failed(saved.error().message, true));
  waiting_.push_back(*id);
  changed_.notify_all();
}

void SandboxRunner::make(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !waiting_.empty(); })) {
    const RankId id = waiting_.front();
    waiting_.pop_front();
    const auto found = all_.find(id);
    if (found == all_.end() || found->second.ended()) continue;
    if (found->second.grace_ms >= 0) {
      end(id, found->second, "rank_exited", exit_of("asked", true));
      continue;
    }
    found->second.making = true;
    const Json terms = terms_of(found->second.effect);
    lock.unlock();
    const auto made = host_.put(id.text(), terms);
    lock.lock();
    One& one = all_.at(id);  // it stays while it is being made
    one.making = false;
    if (made) {
      one.session = *made;
      if (const auto saved = save(id, one); !saved) log_warn("a sandbox's record is not kept", "why={}", saved.error().message);
      log_info("sandbox runs", "rank={} session={}", id.text(), one.session);
      tell(id, one);
    } else if (made.error().code == Code::kUnavailable && shim::monotonic_ms() - one.began_ms < kHostAwayMsMax) {
      changed_.wait_for(lock, stop, std::chrono::milliseconds(kRetryMs), [] { return false; });
      if (stop.stop_requested()) return;  // the next worker goes on
      waiting_.push_back(id);
    } else {
      const bool retryable = made.error().code == Code::kUnavailable || made.error().code == Code::kExhausted;
      end(id, one, "rank_start_failed", start_failed(made.error().message, retryable));
    }
  }
}

void SandboxRunner::look(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    lock.unlock();
    host_.keep();
    look_once();
    lock.lock();
    changed_.wait_for(lock, stop, std::chrono::milliseconds(kLookMs), [] { return false; });
  }
}

void SandboxRunner::look_once() {
  std::vector<std::pair<RankId, std::int64_t>> to_end;
  std::set<RankId> expected;
  std::vector<std::string> forgotten;
  {
    const std::lock_guard lock(mutex_);
    forgotten.swap(forgotten_);
  }
  for (const std::string& key : forgotten) (void)host_.forget(key);
  {
    const std::lock_guard lock(mutex_);
    const bool any = std::ranges::any_of(all_, [](const auto& one) { return !one.second.ended(); });
    if (!any) return;
    for (auto& [id, one] : all_) {
      if (!one.ended() && !one.session.empty()) expected.insert(id);
      if (!one.ended() && !one.told && one.grace_ms >= 0 && !one.session.empty()) to_end.emplace_back(id, one.grace_ms);
    }
  }
  for (const auto& [id, grace_ms] : to_end) {
    const bool told = host_.end(id.text(), grace_ms).has_value();
    const std::lock_guard lock(mutex_);
    if (const auto one = all_.find(id); one != all_.end() && one->second.grace_ms == grace_ms) one->second.told = told;
  }
  const auto placed = host_.list();
  const std::int64_t now_ms = shim::monotonic_ms();
  if (placed) {
    away_since_ms_ = 0;
    return compare(*placed, expected);
  }
  if (away_since_ms_ == 0) away_since_ms_ = now_ms;
  if (now_ms - away_since_ms_ >= kHostAwayMsMax) compare({}, expected);
}

void SandboxRunner::compare(const std::vector<PlacedSandbox>& placed, const std::set<RankId>& expected) {
  std::map<std::string, const PlacedSandbox*> there;
  for (const auto& one : placed) there[one.key] = &one;
  std::vector<std::string> unknown;
  {
    const std::lock_guard lock(mutex_);
    std::set<std::string> known;
    for (auto& [id, one] : all_) {
      known.insert(id.text());
      if (one.ended() || !expected.contains(id)) continue;
      const auto at = there.find(id.text());
      if (at == there.end()) {
        end(id, one, "rank_exited", lost("the session host ended, and the sandbox with it"));
      } else if (at->second->ended) {
        end(id, one, "rank_exited", exit_of(at->second->how, one.grace_ms >= 0));
      }
    }
    for (const auto& one : placed) {
      if (!known.contains(one.key)) unknown.push_back(one.key);
    }
  }
  // Of a start that nobody remembers: it must not run on.
  for (const std::string& key : unknown) {
    (void)host_.end(key, 0);
    (void)host_.forget(key);
  }
}

// Under the lock.
void SandboxRunner::end(const RankId& id, One& one, std::string_view type, Json exit) {
  one.report = type;
  one.exit = std::move(exit);
  if (const auto saved = save(id, one); !saved) log_warn("a sandbox's end is not recorded", "why={}", saved.error().message);
  log_info("sandbox ended", "rank={} session={} how={}", id.text(), one.session, one.exit.dump());
  tell(id, one);
  changed_.notify_all();
}

void SandboxRunner::tell(const RankId& id, const One& one) {
  if (one.ended()) {
    reports_.push(one.report, id, one.exit);
  } else if (!one.session.empty()) {
    reports_.push("rank_started", id, Json::object({{"pid", 0}, {"session", one.session}}));
  }
}

Result<void> SandboxRunner::save(const RankId& id, const One& one) const {
  Json record = Json::object({{"effect", one.effect}, {"session", one.session}});
  if (one.ended()) {
    record["report"] = one.report;
    record["exit"] = one.exit;
  }
  return write_file_atomic(fmt::format("/proc/self/fd/{}/{}.json", directory_.get(), id.text()), record.dump() + "\n", 0600);
}

bool SandboxRunner::stop(const RankId& id, std::int64_t grace_ms) {
  const std::lock_guard lock(mutex_);
  const auto known = all_.find(id);
  if (known == all_.end()) return false;
  One& one = known->second;
  if (one.ended()) {
    tell(id, one);
    return true;
  }
  grace_ms = std::max<std::int64_t>(grace_ms, 0);
  if (one.grace_ms >= 0 && one.grace_ms <= grace_ms) return true;
  log_info("stopping sandbox", "rank={} grace_ms={}", id.text(), grace_ms);
  one.grace_ms = grace_ms;
  one.told = false;
  changed_.notify_all();
  return true;
}

void SandboxRunner::stop_all() {
  std::vector<std::pair<RankId, std::int64_t>> live;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, one] : all_) {
      if (!one.ended()) live.emplace_back(id, one.effect.get_int("grace_ms").value_or(0));
    }
  }
  for (const auto& [id, grace_ms] : live) stop(id, grace_ms);
}

bool SandboxRunner::forget(const RankId& id) {
  const std::lock_guard lock(mutex_);
  const auto known = all_.find(id);
  if (known == all_.end()) return false;
  if (!known->second.ended()) return true;
  all_.erase(known);
  (void)::unlinkat(directory_.get(), (id.text() + ".json").c_str(), 0);
  forgotten_.push_back(id.text());
  return true;
}

void SandboxRunner::add_ranks(Json& list) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, one] : all_) {
    list.push_back(id.with_state(one.ended() ? "exited" : one.session.empty() ? "starting" : "running"));
  }
}

std::size_t SandboxRunner::unended() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::ranges::count_if(all_, [](const auto& one) { return !one.second.ended(); }));
}

}  // namespace capstan::worker

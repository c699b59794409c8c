// The sessions that the scheduler placed on this host (`kind: sandbox`): made, ended and told of by the key of their start.
//
//   PlacedSessions placed;
//   SessionManager manager({…, .on_end = [&](const Session& session, SessionEnd how) { placed.ended(session, how); }});
//   placed.manage(manager);  placed.add_routes(router);    // for the worker (docs/formats/session-host.md)
//
// A key names one start, ever: putting it again gives the same session. An end is kept until the worker forgets it.
// Ending is graceful: every command gets SIGTERM; when none is left, or the grace is over, the session ends.
// Threads: every method from any thread; one of its own ends what is asked to.  Bounds: kPlacedMax.
// Failure: the manager's; kUnavailable while the same key is being made; kInvalid (what is no terms).
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "agents/sessions/session_manager.h"
#include "base/json.h"
#include "http/server.h"

namespace capstan::agents {

inline constexpr std::size_t kPlacedMax = 10'000;  // with those that ended and are not forgotten

class PlacedSessions {
 public:
  PlacedSessions();
  PlacedSessions(const PlacedSessions&) = delete;
  PlacedSessions& operator=(const PlacedSessions&) = delete;

  void manage(SessionManager& manager) { manager_ = &manager; }  // once, before all below
  void add_routes(http::Router& router);

  // The session's id. `terms`: name, tenant, owner? (organisation, project), template, timeout_ms (0: none), allow?, env,
  // memory_bytes, milli_cpus.
  Result<std::string> put(const std::string& key, const Json& terms);
  void end(const std::string& key, std::int64_t grace_ms);
  void forget(const std::string& key);
  // [{"key","session","state":"running"|"ended","how"?: "timeout"|"asked"|"died"}], those being made left out.
  Json list() const;
  void ended(const Session& session, SessionEnd how);
  bool holds(const std::string& session) const;

 private:
  struct Entry {
    std::string session;        // empty while it is being made
    bool over = false;
    std::string how = {};       // it ended
    std::int64_t kill_ms = 0;   // it is asked to end, by then; 0: it is not
  };
  void watch(std::stop_token stop);

  SessionManager* manager_ = nullptr;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Entry> entries_;
  std::jthread watcher_;
};

}  // namespace capstan::agents

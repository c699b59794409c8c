// The sessions of one host: makes them from templates, finds them, ends them in time, and keeps what they used.
//
//   SessionManager manager({.instance = "up-3f2a", .directory = data / "sessions"});
//   router.add_loop_hooks([&](http::EventLoop& loop) { manager.run_on(loop); }, [] {});
//   CAPSTAN_TRY(SessionPtr session, manager.create({.owner = owner, .template_name = "base"}));
//   CAPSTAN_TRY(SessionPtr same, manager.find(session->id(), owner));
//
// The launcher of sandboxes starts with the first session. On a host that cannot enforce what sandboxes promise every
// create() fails with what is missing; nothing is weakened.
//
// Threads: every method from any thread, after run_on; one thread of its own looks after timeouts and usage.
// Bounds: ManagerLimits.  Failure: kUnsupported (the host), kNotFound (no such template or session), kExhausted (a
// limit on sessions), kInvalid (the terms). Usage that is not settled is kept in the directory (usage_file.h), at each sample.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agents/sessions/package_layers.h"
#include "agents/sessions/session.h"
#include "agents/sessions/templates.h"
#include "agents/sessions/usage_file.h"
#include "agents/sessions/warm_pool.h"
#include "sandbox/launcher.h"

namespace capstan::agents {

struct ManagerLimits {
  std::size_t sessions_max = 1'000;             // paused ones count
  std::size_t sessions_of_project_max = 250;
  std::int64_t timeout_ms_max = 24LL * 3600 * 1000;
  std::size_t usage_records_max = 100'000;      // not yet fetched; beyond it the oldest go
  std::int64_t sample_every_ms = 5'000;
  std::int64_t record_every_ms = 60'000;
};

enum class SessionEnd { kAsked, kTimeout, kDied };

struct ManagerOptions {
  std::string instance = {};          // of sandbox::LauncherOptions
  std::string launcher_program = {};  // as there
  std::filesystem::path directory = {};  // templates and snapshots; made if it is missing
  Lookups::Resolve resolve = Lookups::ask_system;  // the names that sandboxes ask for
  ManagerLimits limits = {};
  std::function<void(const Session&, SessionEnd)> on_end = {};  // from any thread, once its usage is recorded
};

class SessionManager {
 public:
  explicit SessionManager(ManagerOptions options);
  ~SessionManager();  // close()
  SessionManager(const SessionManager&) = delete;
  SessionManager& operator=(const SessionManager&) = delete;

  void run_on(http::EventLoop& loop);
  // Whether this host can have sandboxes; starts the launcher.
  Result<void> check();

  Result<SessionPtr> create(SessionTerms terms);
  // Those of the owner's project, and for who operates every placed one; the oldest first.
  std::vector<SessionPtr> list(const Owner& owner) const;
  Result<SessionPtr> find(const std::string& id, const Owner& owner) const;  // or by its workload's name
  // By its token: for those who have nothing else.
  Result<SessionPtr> find(const std::string& id, std::string_view token) const;
  std::vector<SessionPtr> all() const;
  Result<void> end(const std::string& id, const Owner& owner);
  Result<void> check_timeout(std::int64_t timeout_ms) const;

  Templates& templates() { return templates_; }
  const PackageLayers& layers() const { return *layers_; }
  // Sandboxes that wait for a session, by their template.
  std::map<std::string, std::size_t> warm() const { return pool_ ? pool_->ready() : std::map<std::string, std::size_t>{}; }

  // What was used and is not taken yet, the oldest first, with the number of the last; settle() forgets up to it.
  struct UsageBatch {
    std::int64_t last = 0;
    std::vector<store::ComputeRecord> records;
  };
  UsageBatch usage(std::size_t records_max) const;
  void settle(std::int64_t last);

  // Ends every session. What they used stays in the directory, for the next manager of it.
  void close();
  // If there is no session, none is made from now on (kUnavailable), and it is true: another process takes over.
  bool retire();
  bool is_retired() const;

 private:
  Result<sandbox::Launcher*> launcher();
  std::unique_ptr<PackageLayers> make_layers();
  Result<Template> with_packages(Template form, std::chrono::milliseconds wait);
  Result<SessionPtr> make(const Template& form);
  Result<SessionPtr> make_ahead(const Template& form);
  Result<SessionPtr> take(const Template& form);
  std::size_t count() const;  // under mutex_: sessions, and those being made
  Result<void> admit(const Owner& owner) const;  // under mutex_
  void keep();
  void keep_once(std::int64_t now_ms);
  void save_usage(bool record);
  SessionPtr named(const std::string& id) const;  // under mutex_; nullptr: there is none
  void finish(const SessionPtr& session, SessionEnd how);

  const ManagerOptions options_;
  Templates templates_;
  const std::shared_ptr<Lookups> lookups_;  // shared by the sandboxes that may reach hosts
  http::EventLoop* loop_ = nullptr;
  std::mutex usage_file_mutex_;
  UsageFile usage_file_;  // under usage_file_mutex_

  std::mutex launcher_mutex_;
  std::unique_ptr<sandbox::Launcher> launcher_;
  std::optional<Error> refused_;  // for good: what the host lacks

  mutable std::mutex mutex_;
  std::map<std::string, SessionPtr> sessions_;
  std::map<std::int64_t, std::size_t> being_made_;  // by project
  std::vector<store::ComputeRecord> records_;
  std::int64_t records_first_;  // the number of records_[0]; begins with the time, so that no number comes again after a restart
  std::condition_variable changed_;
  bool leaving_ = false;
  bool retired_ = false;
  std::unique_ptr<PackageLayers> layers_;
  std::unique_ptr<WarmPool> pool_;  // since run_on
  std::int64_t sampled_ms_ = 0, recorded_ms_ = 0;  // of the thread
  std::thread thread_;
};

}  // namespace capstan::agents

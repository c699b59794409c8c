// A session: one long-lived sandbox that a client talks to, with its processes, its state and what it used.
//
//   CAPSTAN_TRY(auto process, session->start({.argv = {"/bin/bash", "-lc", "make"}}, listener));
//   CAPSTAN_TRY(std::string text, session->read("results/answer.txt"));
//   session->pause();  session->resume();
//
// Made, found and ended by a SessionManager (session_manager.h), maybe ahead of who wants it: it is nobody's until begin().
// Files: paths as paths.h says; symbolic links are not followed (sandbox/root_files.h).
//
// Threads: every method from any thread.  Failure: kConflict while paused or when it has ended; kExhausted beyond
// kProcessesMax; else the sandbox's.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "agents/egress/egress.h"
#include "agents/sessions/network.h"
#include "agents/sessions/owner.h"
#include "agents/sessions/process.h"
#include "sandbox/root_files.h"
#include "store/compute_usage.h"

namespace capstan::agents {

inline constexpr std::size_t kProcessesMax = 200;         // under way in one session
inline constexpr std::int64_t kFileBytesMax = 512 << 20;  // read at once

using Words = std::map<std::string, std::string>;

class Interpreter;

// Of one that the scheduler placed (placed.h): what its workload says.
struct Placed {
  std::string name;    // of the workload; finds the session as its id does
  std::string tenant;  // whose usage it is
  std::int64_t memory_bytes = 0, milli_cpus = 0;  // in place of the template's
  std::int64_t workload = 0;                      // its number: part of the session's id (session_id.h)
};
inline constexpr std::int64_t kNoTimeoutMs = 100LL * 365 * 24 * 3600 * 1000;

struct SessionTerms {
  Owner owner = {};
  std::string template_name = "base";  // or a snapshot's id or name
  std::string snapshot = {};           // begins with the files of this one, if it is not empty
  Words metadata = {};
  Words env = {};  // of every command
  NetworkWish network = {};
  std::int64_t timeout_ms = 300'000;
  bool pause_at_end = false;  // at its timeout it is paused, not ended
  bool auto_resume = false;   // a request of a paused session's client resumes it
  bool sliding = false;       // each use begins the timeout anew: idle sessions end
  std::optional<Placed> placed = {};
};

// What a session is made of by its manager.
struct SessionParts {
  sandbox::BoxLimits limits = {};
  std::unique_ptr<sandbox::Sandbox> sandbox = {};
  NetworkTerms network = {};             // what it may be given
  std::shared_ptr<Egress> egress = {};   // shared with the loop; none: no network at all
  bool packages = false;                 // at kPackagesPath
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  enum class State { kRunning, kPaused, kEnded };

  // `env` is its template's.
  Session(http::EventLoop& loop, SessionParts parts, const Words& env);
  ~Session();
  // Once, before anybody else knows of it.
  void begin(SessionTerms terms, HostRules hosts);

  http::EventLoop& loop() const { return loop_; }
  const std::string& id() const { return id_; }
  const std::string& token() const { return token_; }  // who has it may use the session
  const SessionTerms& terms() const { return terms_; }
  const sandbox::BoxLimits& limits() const { return parts_.limits; }
  std::int64_t started_ms() const { return started_ms_; }
  std::int64_t ends_ms() const;
  State state() const;

  Result<ProcessPtr> start(ProcessSpec spec, ListenerPtr listener);
  Result<ProcessPtr> process(int number) const;
  Result<ProcessPtr> process(const std::string& tag) const;
  std::vector<ProcessPtr> processes() const;  // those of clients
  // "NAME=value" of every command: with `env` first, whose names win.
  std::vector<std::string> environment(std::vector<std::string> env) const;

  Result<std::string> read(const std::string& path) const;
  Result<void> write(const std::string& path, std::string_view bytes);
  Result<sandbox::InsideEntry> stat(const std::string& path) const;
  Result<std::vector<sandbox::InsideEntry>> list(const std::string& path) const;
  Result<void> make_directory(const std::string& path);
  Result<void> remove(const std::string& path);
  Result<void> rename(const std::string& from, const std::string& to);
  int root_fd() const { return parts_.sandbox->root_fd(); }
  std::uint32_t host_uid() const { return parts_.sandbox->host_uid(); }

  // A copy of its home into `directory`, which is made, while it stands still; and the other way round, while nothing
  // runs in it yet.
  Result<void> copy_home(const std::filesystem::path& directory);
  Result<void> fill_home(const std::filesystem::path& directory);

  Result<void> pause();
  // It ends in timeout_ms: one that runs, was placed, or `keeps` its time, when what it had left at its pause is over, if
  // that is later.
  Result<void> resume(std::int64_t timeout_ms, bool keeps = false);
  void set_timeout(std::int64_t timeout_ms);
  // Before a client's use: resumes what may be, prolongs what slides; else an error that says why not.
  Result<void> wake();
  void end();
  bool alive() const { return parts_.sandbox->alive(); }

  // The hosts that it may reach now; others from now on, within what its template permits.
  HostRules hosts() const;
  Result<void> set_network(const NetworkWish& wish);

  // Code in contexts (interpreter.h), made when first asked for.
  Interpreter& interpreter();

  // Of the manager: looks at what is used now; what was used since the last record, as of the last sample; and takes it.
  void sample(std::int64_t now_ms);
  store::ComputeRecord open_usage() const;
  store::ComputeRecord take_usage(std::int64_t now_ms);
  sandbox::Usage usage_now() const;
  std::int64_t disk_used() const;  // bytes of its files

 private:
  Result<void> usable() const;  // under mutex_

  http::EventLoop& loop_;
  std::string id_;
  const std::string token_;
  SessionTerms terms_;  // as are id_ and started_ms_, begin()'s, then constant
  const SessionParts parts_;
  std::int64_t started_ms_ = 0;

  mutable std::mutex mutex_;
  State state_ = State::kRunning;
  std::int64_t ends_ms_ = 0;
  std::int64_t left_ms_ = 0;  // when it was paused
  int number_next_ = 1000;
  std::map<int, ProcessPtr> processes_;
  std::unique_ptr<Interpreter> interpreter_;

  store::ComputeRecord record() const;  // under usage_mutex_

  mutable std::mutex usage_mutex_;
  sandbox::Usage last_{};           // as of the latest sample
  store::ComputeSum open_{};        // of the part that is under way
  std::int64_t cpu_recorded_us_ = 0;
  std::int64_t sampled_ms_ = 0, part_began_ms_ = 0;
  int part_ = 0;
  std::atomic<std::int64_t> file_bytes_in_{0};
  mutable std::atomic<std::int64_t> file_bytes_out_{0};
  std::int64_t process_bytes_in_ = 0, process_bytes_out_ = 0;  // under mutex_: of those that ended
};
using SessionPtr = std::shared_ptr<Session>;  // shared by the manager and requests under way

std::int64_t unix_ms();

}  // namespace capstan::agents

// The session host of this data directory, as the worker sees it: a process that makes sandboxes and outlives the worker.
//
//   SessionHostProcess host(data, program, arguments);
//   host.keep();       // now and then: starts it if it does not run, replaces one of another build once it has no session
//   CAPSTAN_TRY(std::string session, host.put("7-1-0", terms));   // again: the same session
//
// Where it listens stands in D/worker/session-host.json, which it holds locked while it lives; only the worker's own user can
// write there. The wire: docs/formats/session-host.md.
// Threads: any.  Failure: kUnavailable (it does not run, or does not answer), kExhausted (not now), else its refusal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "worker/data_directory.h"

namespace capstan::worker {

inline constexpr const char* kHostTokenHeader = "x-capstan-host-token";

// A session that was placed, as its host knows it.
struct PlacedSandbox {
  std::string key, session;
  bool ended = false;
  std::string how;  // "timeout", "asked", "died"
};

class SandboxHost {
 public:
  virtual ~SandboxHost() = default;
  virtual void keep() = 0;
  virtual Result<std::string> put(const std::string& key, const Json& terms) = 0;
  virtual Result<std::vector<PlacedSandbox>> list() = 0;
  virtual Result<void> end(const std::string& key, std::int64_t grace_ms) = 0;
  virtual Result<void> forget(const std::string& key) = 0;
};

class SessionHostProcess final : public SandboxHost {
 public:
  // `arguments` without the program's name; empty: there is no session host here.
  SessionHostProcess(const DataDirectory& data, std::filesystem::path program, std::vector<std::string> arguments);

  void keep() override;  // by one thread
  Result<std::string> put(const std::string& key, const Json& terms) override;
  Result<std::vector<PlacedSandbox>> list() override;
  Result<void> end(const std::string& key, std::int64_t grace_ms) override;
  Result<void> forget(const std::string& key) override;
  // Asks it to leave, and waits; its sessions end. keep() starts none from now on.
  void stop();
  // Where it listens, and the token that it wants.
  struct Address {
    std::string url, token;
  };
  Result<Address> listens() const;

 private:
  bool runs() const;
  Result<Json> address() const;
  pid_t process() const;  // 0: none that has said where it is
  void spawn() const;
  void replace_other_build();
  Result<Json> ask(std::string method, std::string target, std::string body, int timeout_ms) const;

  const DataDirectory& data_;
  const std::filesystem::path program_;
  const std::vector<std::string> arguments_;
  std::mutex mutex_;
  std::int64_t started_ms_ = 0;
  bool stopped_ = false;
  std::int64_t asked_ms_ = 0;         // of the thread that calls keep()
  std::string told_;                  // the same: the build that was logged
};

}  // namespace capstan::worker

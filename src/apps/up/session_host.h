// The session host of `capstan up`: sandbox sessions, their APIs, in a process that may make sandboxes.
//
// A child of the supervisor, as the user who started Capstan (root, where sandboxes shall work); it listens on loopback
// only, for the gateway's front alone (agents/front/front.h), and says where in sessions.json. Its sessions end with it,
// and it ends with the supervisor. Threads: SessionHost has one owner.
#pragma once

#include <sys/types.h>

#include "apps/up/data_directory.h"

namespace capstan::apps {

inline constexpr const char* kSessionsAddress = "sessions.json";

class SessionHost {
 public:
  SessionHost(const DataDirectory& data, const Identity& identity) : data_(data), identity_(identity) {}
  ~SessionHost() { stop(); }
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;

  // Starts it, or starts it again after it died; call now and then. Not within kRestartMs of the last start.
  void ensure();
  void stop();

 private:
  static constexpr int kRestartMs = 1'000;
  const DataDirectory& data_;
  const Identity& identity_;
  pid_t child_ = -1;
  std::int64_t started_ms_ = 0;
};

}  // namespace capstan::apps

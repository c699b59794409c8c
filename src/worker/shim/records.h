// The two records that a shim leaves in its rank's directory, and start ticks, by which a process is told
// from a later one with the same pid.
//
//   shim.json  {"pid","start_ticks","child_pid","child_start_ticks"}   written before the rank's program
//   starts exit.json  see ExitRecord; written when nothing of the rank is left running
//
// Both are durable when the function returns true: temporary file, fsync, rename, fsync of the directory.
// Threads: none kept.  Failure: false with errno set.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace capstan::shim {

struct ExitRecord {
  int exit_code = -1;       // valid if signal == 0 and start_error is empty
  int signal = 0;           // the signal that ended the rank, else 0
  std::string start_error;  // the program could not be started; says why
  bool start_retryable = false;
  bool oom = false;           // the kernel killed a process of its cgroup for memory
  bool stopped = false;       // ended after a stop was asked for
  bool timed_out = false;     // the stop was asked for by its own timeout
  bool lost = false;          // written by a worker that found the rank dead without a record
  std::int64_t ended_ms = 0;  // Unix time
};

std::string to_json(const ExitRecord& record);

// Replaces `name` in the directory, durably.
bool write_durably(int directory_fd, const char* name, std::string_view bytes);

// Field 22 of /proc/PID/stat: clock ticks from boot to the start of the process; 0 if there is no such
// process or it is a zombie.
std::uint64_t start_ticks(pid_t pid);

// The parent of a process; 0 if it does not exist.
pid_t parent_of(pid_t pid);

std::int64_t unix_time_ms();
std::int64_t monotonic_ms();

}  // namespace capstan::shim

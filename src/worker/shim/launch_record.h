// LaunchRecord: all that a shim needs to know to run one rank, as bytes that the worker hands it in a memfd.
//
// The form is a sequence of "key=value" fields, each ended by a NUL byte; lists repeat their key in order. It
// is private to one build: the worker and the shim that it starts always come from the same folder of
// binaries. The shim links nothing but libc (a fleet has one per rank), so this folder uses no other folder
// of Capstan. Threads: values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::shim {

// Descriptors that the worker places for the shim.
inline constexpr int kRecordFd = 3;   // memfd with the encoded record
inline constexpr int kRankDirFd = 4;  // the rank's directory, flock'ed: locked as long as the shim lives
inline constexpr int kLogDirFd = 5;   // the directory of the log file

struct LaunchRecord {
  std::vector<std::string> command;      // argv; command[0] is looked up in the PATH of `environment`
  std::vector<std::string> environment;  // complete, "NAME=value"
  std::vector<std::string> cgroups;      // directories to join, one per hierarchy; may be empty
  std::string workdir;                   // absolute
  std::string log_name;                  // file name below kLogDirFd
  std::int64_t log_bytes_max = 0;        // of the log and its rotated parts together
  std::int64_t grace_ms = 0;             // between SIGTERM and SIGKILL, unless the stop says otherwise
  std::int64_t timeout_ms = 0;           // 0: none; else the rank is stopped after it
  std::int64_t open_files_max = 0;       // soft limit for the rank; 0: the shim's own
  std::int64_t uid = -1;                 // -1: stay who the shim is
  std::int64_t gid = -1;
  std::vector<std::uint32_t> groups;  // supplementary, used when uid is given
};

std::string encode(const LaunchRecord& record);

// False if the bytes are no complete record; `why` then says what is wrong.
bool decode(std::string_view bytes, LaunchRecord& record, std::string& why);

}  // namespace capstan::shim

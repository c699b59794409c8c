// What a sandbox is asked to be, what runs in it, and what came of it: plain values that travel between a
// process that wants sandboxes (sandbox/launcher.h) and the launcher that starts them (sandbox/launch/).
//
//   SandboxSpec spec{.limits = {.memory_bytes = 64 << 20}};
//   CommandSpec command{.argv = {"/bin/sh", "-c", "echo hello"}};
//
// Every limit is always on; zero in a numeric limit means the default here, never "none". Threads: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace capstan::sandbox {

enum class Lane : std::uint8_t {
  kProcess,       // any program
  kPythonZygote,  // Python source, run by a fork of a warm interpreter (within one tenant)
  kNodeWarm,      // JavaScript source, run by a Node process that was started ahead and serves once
};

enum class Network : std::uint8_t {
  kNone,       // no sockets but AF_UNIX between the sandbox's own processes
  kNamespace,  // a network namespace of its own with loopback only; the way out is a bound-in Unix socket or listen_port
};

struct Bind {
  std::string host_path{};  // a directory or file of the host, no symbolic link on its last component
  std::string path{};       // where it appears: below /work or /mnt
  bool writable = false;    // needs SandboxSpec::host_uid, the owner of what is written
};

struct BoxLimits {
  std::int64_t memory_bytes = 256 << 20;  // all memory, tmpfs included; beyond it the kernel kills
  std::int64_t milli_cpus = 1000;         // a ceiling, in thousandths of a CPU
  std::int64_t pids = 64;                 // processes and threads
  std::int64_t tmpfs_bytes = 64 << 20;    // /work, /tmp and /dev/shm together
  std::int64_t tmpfs_inodes = 4096;
  std::int64_t open_files = 256;  // per process
};

struct SandboxSpec {
  Lane lane = Lane::kProcess;
  Network network = Network::kNone;
  BoxLimits limits{};
  std::string template_root{};  // empty: this host's /usr and a minimal /etc; else a directory with its own
  std::string tenant{};         // a warm interpreter serves one tenant only
  std::vector<Bind> binds{};
  std::string hostname = "sandbox";
  std::uint32_t uid = 1000;    // inside
  std::uint32_t host_uid = 0;  // the same user seen from outside; 0: an unused one of this launcher's range
  bool long_lived = false;     // several commands, one after the other or at once; else ends with its first
  // A TCP socket that listens on this port of the sandbox's own loopback is handed out (Sandbox::take_listener): a way
  // to the outside on the caller's terms. Needs Network::kNamespace and long_lived; 0: none.
  std::uint16_t listen_port = 0;
};

struct CommandLimits {
  std::int64_t wall_ms = 60'000;
  std::int64_t cpu_ms = 60'000;         // of all its processes together
  std::int64_t output_bytes = 1 << 20;  // kept of standard output and error together; the rest is counted
  std::int64_t output_bytes_max = 64 << 20;  // written in all before it is killed
  std::int64_t memory_bytes = 0;  // in a long-lived sandbox, below the sandbox's own; 0: as the sandbox
};

struct CommandSpec {
  std::vector<std::string> argv{};  // argv[0] is a path inside, or a name looked up in /usr/bin and /bin
  std::vector<std::string> env{};   // "NAME=value"; PATH, HOME, LANG are given unless named here
  std::string cwd = "/work";
  std::string code{};  // the source to run, in the interpreter lanes; argv then holds the program's arguments
  CommandLimits limits{};
  // Descriptors of the caller that become 0, 1, 2; the caller keeps and closes its own. -1: /dev/null for
  // input, capture for output.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  bool terminal = false;  // stdin_fd is a terminal (sandbox/terminal.h); it becomes the controlling one
};

enum class Ended : std::uint8_t {
  kExited,     // by itself: exit_code
  kSignalled,  // by a signal of its own making, or by Command::signal: signal
  kMemory,     // killed by the kernel at its memory limit
  kWallTime,
  kCpuTime,
  kOutput,  // wrote more than output_bytes_max
  kKilled,  // by kill() of the command or its sandbox
  kLost,    // the launcher died, and with it every sandbox
};
const char* ended_name(Ended ended);  // "exited", "signalled", "memory", …

struct Usage {
  std::int64_t cpu_us = 0;
  std::int64_t wall_us = 0;
  std::int64_t memory_bytes = 0;  // in use now: of a running sandbox (Sandbox::usage)
  std::int64_t memory_peak_bytes = 0;
  std::int64_t output_bytes = 0;  // written, kept or not; only of captured streams
};

struct CommandResult {
  Ended ended = Ended::kExited;
  int exit_code = 0;  // as a shell would say it: 128 + signal if a signal ended it
  int signal = 0;
  Usage usage{};
  std::string out{}, err{};  // captured, up to output_bytes together
  bool output_truncated = false;
};

}  // namespace capstan::sandbox

// Sandboxes for programs that nobody trusts: started in a few milliseconds, limited, measured, gone without a
// trace.
//
//   CAPSTAN_TRY(auto launcher, Launcher::start({.instance = "worker-1"}));
//   CAPSTAN_TRY(CommandResult result, launcher->run({}, {.argv = {"/bin/sh", "-c", "echo hello"}}));     //
//   one command
//
//   CAPSTAN_TRY(auto box, launcher->create({.limits = {.memory_bytes = 512 << 20}}));                     //
//   a session CAPSTAN_TRY(auto command, box->start({.argv = {"/bin/bash", "-lc", "make"}}, {.on_output =
//   print})); CAPSTAN_TRY(CommandResult result, command->wait());                    // others may run in it
//   meanwhile box->freeze(); … box->thaw(); … box->kill();
//
// A launcher is a process of its own (capstan-sandbox, small, one thread, root), because a process with
// threads must not clone. It ends with this one, or with the Launcher; if it dies, all its sandboxes die,
// their commands end as kLost, and the next request starts another, which first clears away what is left.
// What a sandbox is made of, and what it does not stop: docs/sandbox.md. A shared kernel does not stop an
// exploit of the kernel.
//
// Threads: every method from any thread. Events are called on the launcher's own thread: they must not block.
// Failure: kUnsupported (this host cannot enforce something: the message names it and the option that does
// without), kInvalid (the spec), kNotFound (no such program inside), kExhausted, kUnavailable (the launcher
// is gone). Cost: a start about 1 ms when one is ready, 2 ms otherwise.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sandbox/capability.h"
#include "sandbox/spec.h"

namespace capstan::sandbox {

enum class Stream { kOut, kErr };

struct CommandEvents {
  // Pieces of captured output as they come, up to output_bytes in all; the result's `out` and `err` then stay
  // empty.
  std::function<void(Stream, std::string_view)> on_output;
  // Last; after it no event follows.
  std::function<void(const Result<CommandResult>&)> on_end;
};

class LauncherLink;

// One command. Dropping it neither ends nor detaches the command: kill() does.
class Command {
 public:
  Result<CommandResult> wait();  // until it ended; the same answer each time
  void kill();
  void signal(int number);  // to its process group

 private:
  friend class LauncherLink;
  struct State;
  std::shared_ptr<LauncherLink> link_;  // shared with the launcher and its sandboxes: the connection
  std::shared_ptr<State> state_;        // shared with the launcher's thread, which completes it
};

// A long-lived sandbox. Its destructor kills it.
class Sandbox {
 public:
  ~Sandbox();
  Result<std::unique_ptr<Command>> start(const CommandSpec& command, CommandEvents events = {});
  Result<CommandResult> run(const CommandSpec& command);
  // All its processes stop where they are, keeping their memory, and go on.
  Result<void> freeze();
  Result<void> thaw();
  Result<Usage> usage();
  void kill();
  // Its root directory (O_PATH), for sandbox/root_files.h; valid as long as this object, even when the
  // sandbox is dead.
  int root_fd() const;
  std::uint32_t host_uid() const;  // its user, as seen from outside
  // The socket of SandboxSpec::listen_port, the caller's from then on; -1 if there is none, or it was taken.
  int take_listener();
  bool alive() const;

 private:
  friend class LauncherLink;
  struct State;
  std::shared_ptr<LauncherLink> link_;  // as Command's
  std::shared_ptr<State> state_;        // shared with the launcher's thread, which learns when it is gone
};

struct LauncherOptions {
  std::string instance{};  // names its cgroups; one launcher at a time has it
  std::string program{};   // capstan-sandbox; empty: beside this program
  // Names of capabilities (check_host) to do without, if the host cannot enforce them. Never assumed.
  std::set<std::string> without{};
  unsigned ready = 4;               // first processes kept ready, without network namespace
  unsigned ready_with_network = 0;  // and with
};

class Launcher {
 public:
  static Result<std::unique_ptr<Launcher>> start(const LauncherOptions& options);
  ~Launcher();  // ends every sandbox

  // One command in a sandbox of its own, which goes with it.
  Result<std::unique_ptr<Command>> start(const SandboxSpec& spec, const CommandSpec& command,
                                         CommandEvents events = {});
  Result<CommandResult> run(const SandboxSpec& spec, const CommandSpec& command);
  Result<std::unique_ptr<Sandbox>> create(const SandboxSpec& spec);

  int process_id() const;  // of the launcher

 private:
  std::shared_ptr<LauncherLink> link_;  // shared with sandboxes and commands, which may outlive this object
};

// What this host can enforce, each tried: namespaces, mounts, seccomp, Landlock, cgroup controllers. Forks.
Result<std::vector<Capability>> check_host(const LauncherOptions& options);
// An error that names what is missing and not among `without`, and what can be done without.
Result<void> require(const std::vector<Capability>& capabilities, const std::set<std::string>& without);

}  // namespace capstan::sandbox

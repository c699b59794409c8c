// The connection between those who use sandboxes and the launcher's process: requests out, answers and output
// in.
//
// Threads: one of its own reads everything; callers' threads send. One mutex guards all state; events are
// called without it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "sandbox/launcher.h"
#include "sandbox/output.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

// Users of sandboxes, seen from the host, are numbers that no account has: so many from here for each
// launcher.
inline constexpr std::uint32_t kUidsPerLauncher = 65'536;
std::uint32_t host_uid_first(std::string_view instance);

struct Command::State {
  std::uint64_t box = 0;
  std::uint32_t id = 0;
  Output output;  // the link's thread alone, once the command is under way
  CommandEvents events;
  bool killed_for_output = false;
  std::optional<Result<CommandResult>> result;
};

struct Sandbox::State {
  std::uint64_t id = 0;
  Fd root, listener;
  std::uint32_t host_uid = 0;
  bool ready = false, gone = false;
  std::mutex one_at_a_time;  // for requests that wait for an answer
  std::optional<Result<Usage>> answer;
};

class LauncherLink : public std::enable_shared_from_this<LauncherLink> {
 public:
  explicit LauncherLink(LauncherOptions options) : options_(std::move(options)) {}
  ~LauncherLink() { stop(); }

  Result<void> start();
  void stop();
  int process_id() const { return pid_; }

  Result<std::unique_ptr<Command>> start_alone(const SandboxSpec& spec, const CommandSpec& command,
                                               CommandEvents events);
  Result<std::unique_ptr<Sandbox>> create(const SandboxSpec& spec);
  Result<std::unique_ptr<Command>> start_in(Sandbox::State& box, const CommandSpec& command,
                                            CommandEvents events);

  // In the node-warm lane: a Node process that was started ahead, and another one ahead for the next.
  Result<std::unique_ptr<Command>> start_warm(const SandboxSpec& spec, const CommandSpec& command,
                                              CommandEvents events);

  Result<CommandResult> wait(Command::State& command);
  void kill(std::uint64_t box, std::uint32_t command, Ended reason);
  void signal(const Command::State& command, int number);
  Result<Usage> ask(Sandbox::State& box, MessageKind kind);
  bool alive(const Sandbox::State& box);

 private:
  using CommandPtr = std::shared_ptr<Command::State>;
  struct Warm {
    std::unique_ptr<Command> command;
    Fd input;  // its program goes here
  };
  Result<Warm> warm_up(const SandboxSpec& spec);
  Result<void> launch();
  int leave();
  Result<void> ensure_running();
  Result<void> send(const std::string& bytes, const std::vector<int>& fds);
  Result<std::unique_ptr<Command>> begin(std::uint64_t box, Packer packer, std::vector<int> fds,
                                         const CommandSpec& command, CommandEvents events);
  void run();
  void on_message(Message& message);
  void on_output(std::uint64_t tag);
  void on_ended(Unpacker& in, std::uint64_t box);
  void on_refused(Unpacker& in, std::uint64_t box);
  CommandPtr take(std::uint64_t box, std::uint32_t id);
  CommandPtr take_locked(std::uint64_t box, std::uint32_t id);
  void complete(const CommandPtr& command, Result<CommandResult> result);
  void lost();

  const LauncherOptions options_;
  std::mutex starting_;  // one (re)start at a time
  std::mutex mutex_;
  std::condition_variable changed_;
  Fd socket_, epoll_;
  int pid_ = -1;
  bool alive_ = false, stopped_ = false;
  std::thread thread_;
  std::uint64_t box_next_ = 0;
  std::uint32_t command_next_ = 0;
  std::map<std::pair<std::uint64_t, std::uint32_t>, CommandPtr> commands_;
  std::map<std::uint32_t, CommandPtr> by_id_;  // command ids are unique in a link, so they also name pipes
  std::map<std::uint64_t, std::shared_ptr<Sandbox::State>> boxes_;
  std::map<std::string, Warm> warm_;  // by the sandbox's spec, which holds the tenant
};

}  // namespace capstan::sandbox

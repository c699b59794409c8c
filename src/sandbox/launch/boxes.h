// The sandboxes of a launcher, from the message that asks for one to the last cgroup directory removed.
//
// Threads: one.  The owner (launch/server.cc) waits for events and calls in; answers go out through `send`.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "sandbox/launch/nursery.h"

namespace capstan::sandbox {

struct RunningCommand {
  std::int64_t started_us = 0;
  std::int64_t cpu_before_us = 0;  // what was used when a warm process was adopted
  CommandLimits limits{};
  RunnerProcess runner{};         // in the interpreter lanes; else a child of the first process
  std::string group{};            // its own within a long-lived sandbox, else the sandbox's
  std::int64_t cpu_check_us = 0;  // when the timer for it is due
  bool ending = false;
  Ended ended = Ended::kKilled;  // why, if ending
};

struct Box {
  std::uint64_t id = 0;  // as its user calls it
  Newborn first{};
  SandboxSpec spec{};
  std::map<std::uint32_t, RunningCommand> commands{};
  std::vector<std::string> groups{};  // of its commands, until removed
  std::uint32_t groups_made = 0;
  bool ready = false;     // long-lived, and its user knows
  bool ending = false;    // was told to go
  bool gone = false;      // its first process is dead
  std::string refusal{};  // what its first process could not do
};

class Boxes {
 public:
  using Send = std::function<void(const std::string& bytes, const std::vector<int>& fds)>;
  using Watch = std::function<void(int fd, std::uint64_t tag)>;
  Boxes(Groups& groups, TemplateRoots& roots, Nursery& nursery, Send send, Watch watch)
      : groups_(groups), roots_(roots), nursery_(nursery), send_(std::move(send)), watch_(std::move(watch)) {}

  // A message of the user about a box.
  void handle(MessageKind kind, Unpacker& in, std::vector<Fd>& fds);
  // Something happened on a watched descriptor.
  void on_socket(std::uint64_t serial);
  void on_death(std::uint64_t serial);
  void on_runner(std::uint64_t serial);
  // Ends what is over its time; removes what can be removed. Microseconds until this is needed again, -1:
  // never.
  std::int64_t tend(std::int64_t now_us);
  void end_all();
  void bury(Newborn&& newborn);
  bool empty() const { return boxes_.empty() && burials_.empty(); }

 private:
  enum class Timer : std::uint8_t { kWall, kCpu };
  using Due = std::tuple<std::int64_t, std::uint64_t, std::uint32_t, Timer>;  // when, box, command, which

  void create(std::uint64_t id, Unpacker& in, std::vector<Fd>& fds);
  void adopt(std::uint64_t serial, Box& box, Unpacker& in);
  void arm(std::uint64_t serial, Box& box, std::uint32_t id, RunningCommand& command);
  bool set_up(Box& box, std::vector<Fd>& fds, std::size_t& used);
  void spawn(std::uint64_t serial, Box& box, Unpacker& in, const std::vector<Fd>& fds, std::size_t used);
  bool take_group(Box& box, RunningCommand& command, std::vector<Fd>& procs);
  int take_runner(std::uint64_t serial, Box& box, RunningCommand& command);
  void runner_ended(std::uint64_t serial, Box& box, std::uint32_t id, int status);
  void signal(Box& box, Unpacker& in);
  void end_command(Box& box, RunningCommand& command, Ended ended);
  void end_box(Box& box, Ended ended);
  void kill(Box& box, Unpacker& in);
  void from_first(std::uint64_t serial, Box& box, Unpacker& in, std::vector<Fd>& fds);
  void command_ended(std::uint64_t serial, Box& box, std::uint32_t id, int status);
  void report(std::uint64_t serial, Box& box, std::uint32_t id, CommandResult result);
  void forget(std::uint64_t serial, std::uint32_t id, const RunningCommand& command);
  void acknowledge(const Box& box, bool good, const char* what);
  void refuse(std::uint64_t box, std::uint32_t command, const std::string& text);
  void check_cpu(std::uint64_t serial, Box& box, std::uint32_t id, RunningCommand& command,
                 std::int64_t now_us);

  Groups& groups_;
  TemplateRoots& roots_;
  Nursery& nursery_;
  Send send_;
  Watch watch_;
  std::map<std::uint64_t, Box> boxes_;              // by serial
  std::map<std::uint64_t, std::uint64_t> serials_;  // by the user's id
  std::uint64_t serial_next_ = 0;
  std::set<Due> due_;
  struct Burial {
    std::string group{};
    bool nested = false, reusable = false;
  };
  std::vector<Burial> burials_;  // cgroups whose processes are still leaving; nested ones first
};

// How a watched descriptor's tag says what it is.
enum class Watched : std::uint64_t { kSocket, kDeath, kRunner };
inline std::uint64_t tag_of(std::uint64_t serial, Watched what) {
  return serial << 2 | static_cast<std::uint64_t>(what);
}

}  // namespace capstan::sandbox

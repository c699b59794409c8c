// How it works: a box is known by a serial here and by an id to its user. A first process says when a command
// ended; its own death ends whatever is left. Limits in time are one ordered set of what is due next.
#include "sandbox/launch/boxes.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "sandbox/launch/server.h"

namespace capstan::sandbox {
namespace {

constexpr std::int64_t kCpuCheckUsMin = 20'000;
constexpr std::int64_t kBurialRetryUs = 5'000;

std::int64_t now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

CommandResult result_of(int status) {
  CommandResult result;
  if (WIFSIGNALED(status)) {
    result.ended = Ended::kSignalled;
    result.signal = WTERMSIG(status);
    result.exit_code = 128 + result.signal;
  } else {
    result.exit_code = WEXITSTATUS(status);
  }
  return result;
}

}  // namespace

void Boxes::refuse(std::uint64_t box, std::uint32_t command, const std::string& text) {
  send_(Packer(MessageKind::kRefused).i64(static_cast<std::int64_t>(box)).u32(command).text(text).bytes(),
        {});
}

void Boxes::acknowledge(const Box& box, bool good, const char* what) {
  if (!good) return refuse(box.id, 0, std::string(what) + ": " + std::strerror(errno));
  send_(Packer(MessageKind::kReady).i64(static_cast<std::int64_t>(box.id)).bytes(), {});
}

void Boxes::handle(MessageKind kind, Unpacker& in, std::vector<Fd>& fds) {
  const auto id = static_cast<std::uint64_t>(in.i64());
  if (kind == MessageKind::kCreate) return create(id, in, fds);
  const auto known = serials_.find(id);
  if (known == serials_.end()) {
    if (kind == MessageKind::kExec)
      refuse(id, in.u32(), "the sandbox is gone");
    else if (kind != MessageKind::kKill && kind != MessageKind::kAdopt && kind != MessageKind::kSignal)
      refuse(id, 0, "the sandbox is gone");
    return;
  }
  Box& box = boxes_.at(known->second);
  switch (kind) {
    case MessageKind::kExec:
      return spawn(known->second, box, in, fds, 0);
    case MessageKind::kAdopt:
      return adopt(known->second, box, in);
    case MessageKind::kKill:
      return kill(box, in);
    case MessageKind::kFreeze:
      return acknowledge(box, groups_.freeze(box.first.group, true), "cannot freeze");
    case MessageKind::kThaw:
      return acknowledge(box, groups_.freeze(box.first.group, false), "cannot thaw");
    case MessageKind::kSignal:
      return signal(box, in);
    case MessageKind::kUsage: {
      CommandResult result;
      const GroupUsage usage = groups_.usage(box.first.group);
      result.usage.cpu_us = usage.cpu_us;
      result.usage.memory_bytes = usage.memory_bytes;
      result.usage.memory_peak_bytes = usage.memory_peak_bytes;
      send_(Packer(MessageKind::kUsage).i64(static_cast<std::int64_t>(id)).result(result).bytes(), {});
      return;
    }
    default:
      return;
  }
}

// Descriptors: the template's directory if it has one, the binds, stdio.
void Boxes::create(std::uint64_t id, Unpacker& in, std::vector<Fd>& fds) {
  Box box{.id = id, .spec = in.sandbox()};
  if (!in.good()) return refuse(id, 0, "the request is malformed");
  if (boxes_.size() >= kBoxesMax)
    return refuse(id, 0, "there are already " + std::to_string(kBoxesMax) + " sandboxes");
  std::size_t used = 0;
  if (!set_up(box, fds, used)) return refuse(id, 0, box.refusal);
  const std::uint64_t serial = ++serial_next_;
  watch_(box.first.socket.get(), tag_of(serial, Watched::kSocket));
  watch_(box.first.pidfd.get(), tag_of(serial, Watched::kDeath));
  if (box.first.runner.pid > 0) watch_(box.first.runner.pidfd.get(), tag_of(serial, Watched::kRunner));
  serials_[id] = serial;
  Box& kept = boxes_.emplace(serial, std::move(box)).first->second;
  if (!kept.spec.long_lived) spawn(serial, kept, in, fds, used);
}

// On failure nothing is left but the box's refusal.
bool Boxes::set_up(Box& box, std::vector<Fd>& fds, std::size_t& used) {
  const auto failed = [&](Fault fault) {
    box.refusal = std::string("cannot ") + fault + ": " + std::strerror(errno);
    return false;
  };
  const std::size_t wanted = box.spec.binds.size() + (box.spec.template_root.empty() ? 0 : 1);
  if (fds.size() < wanted) return failed("receive the descriptors of the request");
  if (!box.spec.template_root.empty()) {
    if (const Fault fault = roots_.prepare(box.spec.template_root, fds[used++].get())) return failed(fault);
  }
  std::vector<Fd> binds;
  std::vector<int> trees;
  for (const Bind& bind : box.spec.binds) {
    binds.push_back(roots_.clone_of_host(fds[used++].get(), bind.writable));
    if (!binds.back()) return failed("bind a directory");
    trees.push_back(binds.back().get());
  }
  if (const Fault fault = nursery_.take(box.spec, box.first)) return failed(fault);
  if (box.first.whole) {
    if (box.spec.host_uid == 0) box.spec.host_uid = box.first.host_uid;
    return true;
  }
  if (const Fault fault = nursery_.set_up(box.spec, trees, box.first)) {
    failed(fault);
    bury(std::move(box.first));
    return false;
  }
  return true;
}

// A command in a long-lived sandbox has a group of its own; the one command of a short-lived one has the
// sandbox's.
bool Boxes::take_group(Box& box, RunningCommand& command, std::vector<Fd>& procs) {
  command.group = box.first.group;
  if (!box.spec.long_lived) return true;
  command.group += "/c" + std::to_string(++box.groups_made);
  box.groups.push_back(command.group);
  if (!groups_.make_nested(command.group)) return false;
  const std::int64_t memory = command.limits.memory_bytes;
  if (memory > 0 && memory < box.spec.limits.memory_bytes && !groups_.set_memory(command.group, memory))
    return false;
  return groups_.open_procs(command.group, true, procs);
}

void Boxes::spawn(std::uint64_t serial, Box& box, Unpacker& in, const std::vector<Fd>& fds,
                  std::size_t used) {
  const std::uint32_t id = in.u32();
  const std::uint32_t given = in.u32();
  const CommandSpec spec = in.command();
  if (!in.good() || fds.size() - used != static_cast<std::size_t>(__builtin_popcount(given))) {
    return refuse(box.id, id, "the request is malformed");
  }
  if (box.ending || box.commands.size() >= kCommandsPerBoxMax) {
    return refuse(box.id, id,
                  box.ending ? "the sandbox is ending" : "too many commands at once in one sandbox");
  }
  RunningCommand command{.started_us = now_us(), .limits = spec.limits};
  std::vector<Fd> procs;
  if (!take_group(box, command, procs))
    return refuse(box.id, id, std::string("cannot make a cgroup: ") + std::strerror(errno));
  std::vector<int> passed;
  for (; used < fds.size(); ++used) passed.push_back(fds[used].get());
  for (const auto& file : procs) passed.push_back(file.get());
  const bool interprets = box.spec.lane == Lane::kPythonZygote;
  const int socket = interprets ? take_runner(serial, box, command) : box.first.socket.get();
  if (socket < 0)
    return refuse(box.id, id,
                  "cannot fork the warm Python interpreter (/usr/bin/python3): " +
                      std::string(std::strerror(errno)));
  const std::string bytes = Packer(MessageKind::kSpawn).u32(id).u32(given).command(spec).bytes();
  // A runner that is dead already has left its reason, which its death brings up.
  if (!send_message(socket, bytes, passed) && !interprets)
    return refuse(box.id, id, std::string("cannot reach the sandbox: ") + std::strerror(errno));
  arm(serial, box, id, command);
  box.commands[id] = std::move(command);
}

// The socket of a runner for this command: the one that was made ahead, or a new one; -1 with errno.
int Boxes::take_runner(std::uint64_t serial, Box& box, RunningCommand& command) {
  if (box.first.runner.pid > 0) {
    command.runner = std::exchange(box.first.runner, {});
    return command.runner.socket.get();
  }
  if (nursery_.make_runner(box.spec, box.first, command.runner) != nullptr) return -1;
  watch_(command.runner.pidfd.get(), tag_of(serial, Watched::kRunner));
  return command.runner.socket.get();
}

void Boxes::arm(std::uint64_t serial, Box& box, std::uint32_t id, RunningCommand& command) {
  const std::int64_t cpu_us = command.limits.cpu_ms * 1000;
  const std::int64_t milli_cpus = std::max<std::int64_t>(box.spec.limits.milli_cpus, 1);
  command.cpu_check_us = command.started_us + std::max(kCpuCheckUsMin, cpu_us * 1000 / milli_cpus);
  due_.emplace(command.started_us + command.limits.wall_ms * 1000, serial, id, Timer::kWall);
  due_.emplace(command.cpu_check_us, serial, id, Timer::kCpu);
}

// A process that was started ahead begins to serve: time and CPU count from here.
void Boxes::adopt(std::uint64_t serial, Box& box, Unpacker& in) {
  const auto found = box.commands.find(in.u32());
  if (found == box.commands.end()) return;
  RunningCommand& command = found->second;
  forget(serial, found->first, command);
  command.limits = in.command().limits;
  command.started_us = now_us();
  command.cpu_before_us = groups_.cpu_us(command.group);
  arm(serial, box, found->first, command);
}

void Boxes::kill(Box& box, Unpacker& in) {
  const std::uint32_t id = in.u32();
  const auto reason = static_cast<Ended>(in.u32());
  if (id == 0) return end_box(box, reason);
  const auto command = box.commands.find(id);
  if (command != box.commands.end()) end_command(box, command->second, reason);
}

// To the command's process group, as a terminal would.
void Boxes::signal(Box& box, Unpacker& in) {
  const std::uint32_t id = in.u32();
  const std::uint32_t number = in.u32();
  const auto command = box.commands.find(id);
  if (command == box.commands.end()) return;
  const pid_t pid = command->second.runner.pid;
  if (pid > 0) {
    if (::kill(-pid, static_cast<int>(number)) != 0) ::kill(pid, static_cast<int>(number));
    return;
  }
  send_message(box.first.socket.get(), Packer(MessageKind::kSignal).u32(id).u32(number).bytes());
}

void Boxes::end_command(Box& box, RunningCommand& command, Ended ended) {
  if (command.ending) return;
  if (!box.spec.long_lived) return end_box(box, ended);
  command.ending = true;
  command.ended = ended;
  // It may not have joined its group yet: its first process, which starts it before it reads this, kills it
  // then.
  if (command.runner.pid > 0) ::kill(command.runner.pid, SIGKILL);
  for (const auto& [id, each] : box.commands) {
    if (&each != &command || command.runner.pid > 0) continue;
    send_message(box.first.socket.get(), Packer(MessageKind::kSignal).u32(id).u32(SIGKILL).bytes());
  }
  groups_.kill(command.group);
}

void Boxes::end_box(Box& box, Ended ended) {
  box.ending = true;
  for (auto& [id, command] : box.commands) {
    if (command.ending) continue;
    command.ending = true;
    command.ended = ended;
  }
  if (box.first.pidfd) ::syscall(SYS_pidfd_send_signal, box.first.pidfd.get(), SIGKILL, nullptr, 0);
}

void Boxes::end_all() {
  for (auto& [serial, box] : boxes_) end_box(box, Ended::kKilled);
}

void Boxes::on_socket(std::uint64_t serial) {
  const auto found = boxes_.find(serial);
  if (found == boxes_.end()) return;
  Message message;
  // One message at a time: the descriptor stays ready while there are more.
  if (receive_message(found->second.first.socket.get(), message) != 1) {
    found->second.first.socket.reset();  // its death is seen on the pidfd
    return;
  }
  Unpacker in(message.bytes);
  from_first(serial, found->second, in, message.fds);
}

void Boxes::from_first(std::uint64_t serial, Box& box, Unpacker& in, std::vector<Fd>& fds) {
  switch (in.kind()) {
    case MessageKind::kReady: {
      box.ready = true;
      std::vector<int> given;
      for (const Fd& fd : fds) given.push_back(fd.get());
      return send_(
          Packer(MessageKind::kReady).i64(static_cast<std::int64_t>(box.id)).u32(box.spec.host_uid).bytes(),
          given);
    }
    case MessageKind::kRefused: {
      const std::uint32_t id = in.u32();
      const std::string step = in.text();
      const std::string text = "cannot " + step + ": " + std::strerror(static_cast<int>(in.u32()));
      if (id == 0) {
        box.refusal = text;  // it ends now
        return;
      }
      const auto command = box.commands.find(id);
      if (command == box.commands.end()) return;
      forget(serial, id, command->second);
      box.commands.erase(command);
      return refuse(box.id, id, text);
    }
    case MessageKind::kEnded: {
      const std::uint32_t id = in.u32();
      return command_ended(serial, box, id, static_cast<int>(in.u32()));
    }
    default:
      return;
  }
}

void Boxes::command_ended(std::uint64_t serial, Box& box, std::uint32_t id, int status) {
  const auto found = box.commands.find(id);
  if (found == box.commands.end()) return;
  report(serial, box, id, result_of(status));
}

// Sends the result, as what the sandbox knows makes it, and forgets the command.
void Boxes::report(std::uint64_t serial, Box& box, std::uint32_t id, CommandResult result) {
  RunningCommand& command = box.commands.at(id);
  const GroupUsage usage = groups_.usage(command.group);
  result.usage.cpu_us = usage.cpu_us - command.cpu_before_us;
  result.usage.memory_peak_bytes = usage.memory_peak_bytes;
  result.usage.wall_us = now_us() - command.started_us;
  const bool killed = result.exit_code == 128 + SIGKILL;  // itself, or what its shell ran
  if (command.ending) {
    result.ended = command.ended;
    if (box.spec.long_lived) groups_.kill(command.group);  // what it had started meanwhile
  } else if (killed && usage.memory_kills > 0) {
    result.ended = Ended::kMemory;
  } else if (result.signal == SIGXCPU || (killed && result.usage.cpu_us >= command.limits.cpu_ms * 1000)) {
    result.ended = Ended::kCpuTime;
  }
  send_(Packer(MessageKind::kEnded).i64(static_cast<std::int64_t>(box.id)).u32(id).result(result).bytes(),
        {});
  forget(serial, id, command);
  // What the command left running in a long-lived sandbox lives on, and keeps its group until the sandbox
  // ends.
  if (box.spec.long_lived && groups_.remove(command.group)) std::erase(box.groups, command.group);
  box.commands.erase(id);
}

void Boxes::forget(std::uint64_t serial, std::uint32_t id, const RunningCommand& command) {
  due_.erase({command.started_us + command.limits.wall_ms * 1000, serial, id, Timer::kWall});
  due_.erase({command.cpu_check_us, serial, id, Timer::kCpu});
}

// A runner is dead, which one is not known. The kernel lets the first process end only when all are waited
// for.
void Boxes::on_runner(std::uint64_t serial) {
  const auto found = boxes_.find(serial);
  if (found == boxes_.end()) return;
  Box& box = found->second;
  int status = 0;
  RunnerProcess& unused = box.first.runner;
  if (unused.pid > 0 && ::waitpid(unused.pid, &status, WNOHANG) == unused.pid) unused = {};
  std::vector<std::pair<std::uint32_t, int>> ended;
  for (const auto& [id, command] : box.commands) {
    const pid_t pid = command.runner.pid;
    if (pid > 0 && ::waitpid(pid, &status, WNOHANG) == pid) ended.emplace_back(id, status);
  }
  for (const auto& [id, how] : ended) runner_ended(serial, box, id, how);
}

void Boxes::runner_ended(std::uint64_t serial, Box& box, std::uint32_t id, int status) {
  RunningCommand& command = box.commands.at(id);
  Message message;
  std::string refusal;
  if (receive_message(command.runner.socket.get(), message) == 1) {
    Unpacker in(message.bytes);
    if (in.kind() == MessageKind::kRefused) {
      (void)in.u32();
      const std::string step = in.text();
      refusal = "cannot " + step + ": " + std::strerror(static_cast<int>(in.u32()));
    }
  }
  command.runner = {};  // its number may be another's from now on
  if (refusal.empty() || command.ending) {
    report(serial, box, id, result_of(status));
  } else {
    // If the first process could not do its part, that is why.
    while (receive_message(box.first.socket.get(), message) == 1) {
      Unpacker in(message.bytes);
      from_first(serial, box, in, message.fds);
    }
    refuse(box.id, id, box.refusal.empty() ? refusal : box.refusal);
    forget(serial, id, command);
    box.commands.erase(id);
  }
  if (!box.spec.long_lived) end_box(box, Ended::kKilled);
}

void Boxes::on_death(std::uint64_t serial) {
  const auto found = boxes_.find(serial);
  if (found == boxes_.end()) return;
  // What it said before it died comes first.
  while (found->second.first.socket) on_socket(serial);
  Box& box = found->second;
  int status = 0;
  if (::waitpid(box.first.pid, &status, WNOHANG) != box.first.pid) return;
  while (!box.commands.empty()) {
    const std::uint32_t id = box.commands.begin()->first;
    if (box.refusal.empty()) {
      report(serial, box, id, result_of(SIGKILL));
      continue;
    }
    refuse(box.id, id, box.refusal);
    forget(serial, id, box.commands.at(id));
    box.commands.erase(id);
  }
  if (box.spec.long_lived) {
    if (box.ready)
      send_(Packer(MessageKind::kGone).i64(static_cast<std::int64_t>(box.id)).bytes(), {});
    else
      refuse(box.id, 0, box.refusal.empty() ? "its first process was killed" : box.refusal);
  }
  for (const auto& group : box.groups) burials_.push_back({.group = group, .nested = true});
  burials_.push_back({.group = box.first.group, .reusable = !box.spec.long_lived});
  nursery_.release_uid(box.first.host_uid);
  serials_.erase(box.id);
  boxes_.erase(found);
}

// A first process that serves no box: killed, waited for, its cgroup left to tend().
void Boxes::bury(Newborn&& newborn) {
  ::syscall(SYS_pidfd_send_signal, newborn.pidfd.get(), SIGKILL, nullptr, 0);
  if (newborn.runner.pid > 0) ::waitpid(newborn.runner.pid, nullptr, 0);
  ::waitpid(newborn.pid, nullptr, 0);
  nursery_.release_uid(newborn.host_uid);
  burials_.push_back({.group = newborn.group, .reusable = true});
}

void Boxes::check_cpu(std::uint64_t serial, Box& box, std::uint32_t id, RunningCommand& command,
                      std::int64_t now) {
  const std::int64_t left_us =
      command.limits.cpu_ms * 1000 + command.cpu_before_us - groups_.cpu_us(command.group);
  if (left_us <= 0) return end_command(box, command, Ended::kCpuTime);
  command.cpu_check_us =
      now + std::max(kCpuCheckUsMin, left_us * 1000 / std::max<std::int64_t>(box.spec.limits.milli_cpus, 1));
  due_.emplace(command.cpu_check_us, serial, id, Timer::kCpu);
}

std::int64_t Boxes::tend(std::int64_t now) {
  while (!due_.empty() && std::get<0>(*due_.begin()) <= now) {
    const auto [when, serial, id, timer] = *due_.begin();
    due_.erase(due_.begin());
    const auto box = boxes_.find(serial);
    if (box == boxes_.end()) continue;
    const auto command = box->second.commands.find(id);
    if (command == box->second.commands.end()) continue;
    if (timer == Timer::kWall)
      end_command(box->second, command->second, Ended::kWallTime);
    else
      check_cpu(serial, box->second, id, command->second, now);
  }
  std::erase_if(burials_, [&](const Burial& burial) {
    return burial.nested ? groups_.remove(burial.group) : groups_.give_back(burial.group, burial.reusable);
  });
  if (!burials_.empty()) return kBurialRetryUs;
  return due_.empty() ? -1 : std::get<0>(*due_.begin()) - now;
}

}  // namespace capstan::sandbox

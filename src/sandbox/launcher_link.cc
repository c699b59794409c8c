// How it works: the launcher's answers carry the numbers that requests gave. When a command ends, what its
// pipes still hold is read before its result is handed out.
#include "sandbox/launcher_link.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace capstan::sandbox {
namespace {

constexpr std::uint64_t kSocketTag = ~std::uint64_t{0};
constexpr int kEventsMax = 64;

Error as_error(const std::string& text) {
  Error error{Code::kUnavailable, text, {}};
  if (text.find("No such file") != text.npos || text.find("Permission denied") != text.npos)
    error.code = Code::kNotFound;
  if (text.find("already") != text.npos || text.find("too many") != text.npos) error.code = Code::kExhausted;
  return error;
}

}  // namespace

Result<void> LauncherLink::send(const std::string& bytes, const std::vector<int>& fds) {
  // Blocks while the launcher is busy: that is the bound on what is asked of it at once.
  if (send_message(socket_.get(), bytes, fds)) return {};
  if (errno == EMSGSIZE) return fail(Code::kInvalid, "a command of more than {} bytes", kMessageBytesMax);
  return fail_errno("the sandbox launcher is gone", errno);
}

Result<std::unique_ptr<Command>> LauncherLink::begin(std::uint64_t box, Packer packer, std::vector<int> fds,
                                                     const CommandSpec& spec, CommandEvents events) {
  auto state = std::make_shared<Command::State>();
  CAPSTAN_CHECK(state->output.make(spec, events.on_output));
  state->events = std::move(events);
  state->box = box;
  std::uint32_t given = 0;
  const int stdio[3] = {spec.stdin_fd,
                        spec.stdout_fd >= 0 ? spec.stdout_fd : state->output.write_fd(Stream::kOut),
                        spec.stderr_fd >= 0 ? spec.stderr_fd : state->output.write_fd(Stream::kErr)};
  for (int i = 0; i < 3; ++i) {
    if (stdio[i] < 0) continue;
    given |= 1u << i;
    fds.push_back(stdio[i]);
  }
  auto command = std::make_unique<Command>();
  command->link_ = shared_from_this();
  command->state_ = state;
  const std::lock_guard lock(mutex_);
  if (!alive_) return fail(Code::kUnavailable, "the sandbox launcher is gone");
  state->id = ++command_next_;
  packer.u32(state->id).u32(given).command(spec);
  commands_[{box, state->id}] = state;
  by_id_[state->id] = state;
  for (const Stream stream : {Stream::kOut, Stream::kErr}) {
    if (state->output.read_fd(stream) < 0) continue;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = std::uint64_t{state->id} << 1 | (stream == Stream::kErr ? 1 : 0);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, state->output.read_fd(stream), &event);
  }
  const auto sent = send(packer.bytes(), fds);
  state->output.close_write();
  if (sent) return command;
  take_locked(box, state->id);
  return std::unexpected(sent.error());
}

Result<CommandResult> LauncherLink::wait(Command::State& command) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return command.result.has_value(); });
  return *command.result;
}

void LauncherLink::kill(std::uint64_t box, std::uint32_t command, Ended reason) {
  const std::lock_guard lock(mutex_);
  if (!alive_) return;
  (void)send(Packer(MessageKind::kKill)
                 .i64(static_cast<std::int64_t>(box))
                 .u32(command)
                 .u32(static_cast<std::uint32_t>(reason))
                 .bytes(),
             {});
}

void LauncherLink::signal(const Command::State& command, int number) {
  const std::lock_guard lock(mutex_);
  if (!alive_) return;
  Packer packer(MessageKind::kSignal);
  (void)send(packer.i64(static_cast<std::int64_t>(command.box))
                 .u32(command.id)
                 .u32(static_cast<std::uint32_t>(number))
                 .bytes(),
             {});
}

bool LauncherLink::alive(const Sandbox::State& box) {
  const std::lock_guard lock(mutex_);
  return !box.gone;
}

Result<Usage> LauncherLink::ask(Sandbox::State& box, MessageKind kind) {
  const std::lock_guard turn(box.one_at_a_time);
  std::unique_lock lock(mutex_);
  if (!alive_ || box.gone) return fail(Code::kConflict, "the sandbox is gone");
  box.answer.reset();
  CAPSTAN_CHECK(send(Packer(kind).i64(static_cast<std::int64_t>(box.id)).bytes(), {}));
  changed_.wait(lock, [&] { return box.answer.has_value() || box.gone; });
  if (!box.answer) return fail(Code::kConflict, "the sandbox is gone");
  return *box.answer;
}

void LauncherLink::run() {
  epoll_event events[kEventsMax];
  for (;;) {
    const int count = ::epoll_wait(epoll_.get(), events, kEventsMax, -1);
    bool message_waits = false;
    // Output before messages, so that a command's last words are not left for drain() alone.
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kSocketTag)
        message_waits = true;
      else
        on_output(events[i].data.u64);
    }
    if (!message_waits) continue;
    Message message;
    if (receive_message(socket_.get(), message) != 1) return lost();
    on_message(message);
  }
}

void LauncherLink::on_output(std::uint64_t tag) {
  CommandPtr command;
  {
    const std::lock_guard lock(mutex_);
    const auto found = by_id_.find(static_cast<std::uint32_t>(tag >> 1));
    if (found == by_id_.end()) return;
    command = found->second;
  }
  const Stream stream = (tag & 1) != 0 ? Stream::kErr : Stream::kOut;
  if (!command->output.read(stream)) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, command->output.read_fd(stream), nullptr);
  } else if (command->output.over() && !command->killed_for_output) {
    command->killed_for_output = true;
    kill(command->box, command->id, Ended::kOutput);
  }
}

void LauncherLink::on_message(Message& message) {
  Unpacker in(message.bytes);
  const MessageKind kind = in.kind();
  const auto box = static_cast<std::uint64_t>(in.i64());
  if (kind == MessageKind::kEnded) return on_ended(in, box);
  if (kind == MessageKind::kRefused) return on_refused(in, box);
  const std::lock_guard lock(mutex_);
  const auto found = boxes_.find(box);
  if (found == boxes_.end()) return;
  Sandbox::State& state = *found->second;
  if (kind == MessageKind::kGone) {
    state.gone = true;
    boxes_.erase(found);
  } else if (kind == MessageKind::kUsage) {
    state.answer = in.result().usage;
  } else if (kind == MessageKind::kReady && !state.ready) {
    state.ready = true;
    state.host_uid = in.u32();
    if (!message.fds.empty()) state.root = std::move(message.fds[0]);
    if (message.fds.size() > 1) state.listener = std::move(message.fds[1]);
  } else if (kind == MessageKind::kReady) {
    state.answer = Usage{};
  }
  changed_.notify_all();
}

void LauncherLink::on_ended(Unpacker& in, std::uint64_t box) {
  const std::uint32_t id = in.u32();
  CommandResult result = in.result();
  const CommandPtr command = take(box, id);
  if (command == nullptr) return;
  command->output.drain();
  command->output.put_into(result);
  complete(command, std::move(result));
}

void LauncherLink::on_refused(Unpacker& in, std::uint64_t box) {
  const std::uint32_t id = in.u32();
  const std::string text = in.text();
  std::vector<CommandPtr> refused;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [key, command] : commands_) {
      if (key.first == box && (id == 0 || key.second == id)) refused.push_back(command);
    }
    const auto found = boxes_.find(box);
    if (found != boxes_.end() && id == 0) {
      found->second->answer = std::unexpected(as_error(text));
      // A sandbox that never became ready is gone with this; a refused freeze leaves it as it was.
      if (!found->second->ready) {
        found->second->gone = true;
        boxes_.erase(found);
      } else {
        refused.clear();
      }
    }
    changed_.notify_all();
  }
  for (const auto& command : refused) {
    take(command->box, command->id);
    complete(command, std::unexpected(as_error(text)));
  }
}

// Removes it from the tables; its pipes stay its own.
LauncherLink::CommandPtr LauncherLink::take(std::uint64_t box, std::uint32_t id) {
  const std::lock_guard lock(mutex_);
  return take_locked(box, id);
}

LauncherLink::CommandPtr LauncherLink::take_locked(std::uint64_t box, std::uint32_t id) {
  const auto found = commands_.find({box, id});
  if (found == commands_.end()) return nullptr;
  CommandPtr command = found->second;
  commands_.erase(found);
  by_id_.erase(id);
  return command;
}

void LauncherLink::complete(const CommandPtr& command, Result<CommandResult> result) {
  // on_end before waiters: who waited may take things apart that the event still needs.
  if (command->events.on_end) command->events.on_end(result);
  command->events = {};
  const std::lock_guard lock(mutex_);
  command->result = std::move(result);
  changed_.notify_all();
}

void LauncherLink::lost() {
  std::vector<CommandPtr> commands;
  {
    const std::lock_guard lock(mutex_);
    alive_ = false;
    for (auto& [key, command] : commands_) commands.push_back(command);
    commands_.clear();
    by_id_.clear();
    for (auto& [id, box] : boxes_) box->gone = true;
    boxes_.clear();
    changed_.notify_all();
  }
  for (const auto& command : commands) {
    CommandResult result{.ended = Ended::kLost, .exit_code = 137, .signal = 9};
    command->output.drain();
    command->output.put_into(result);
    complete(command, std::move(result));
  }
}

}  // namespace capstan::sandbox

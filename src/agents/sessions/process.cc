// How it works: reading ends are non-blocking and watched while no listener lags; the launcher's thread announces the
// end, and the loop then takes what is left in the pipes.
#include "agents/sessions/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace capstan::agents {
namespace {

constexpr std::size_t kReadBytes = 64u << 10;
constexpr std::int64_t kLastBytesMax = 4 << 20;  // taken after the end: more than a pipe holds
constexpr std::int64_t kCpuMsMax = 7LL * 24 * 3600 * 1000;
constexpr int kPollMs = 100;

Result<void> make_pipe(sandbox::Fd& read, sandbox::Fd& write) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
  read.reset(ends[0]);
  write.reset(ends[1]);
  return {};
}

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

}  // namespace

// Something of the command's that the loop reads.
struct Process::Source final : http::EventLoop::Watcher {
  Source(Process& p, Channel c, int f) : process(p), channel(c), fd(f) {}
  void on_ready(std::uint32_t) override {
    const auto keep = process.shared_from_this();
    if (read()) process.must_wait();
  }
  // One piece; false at the end, or if there is nothing now.
  bool read() {
    char buffer[kReadBytes];
    const ssize_t count = ::read(fd, buffer, sizeof buffer);
    if (count > 0) {
      process.deliver(channel, {buffer, static_cast<std::size_t>(count)});
      return true;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    unwatch();  // the end; of a terminal it is EIO
    over = true;
    return false;
  }
  void watch() {
    if (!watched && !over) process.loop_.watch(fd, EPOLLIN, *this);
    watched = !over;
  }
  void unwatch() {
    if (watched) process.loop_.unwatch(fd, *this);
    watched = false;
  }

  Process& process;
  const Channel channel;
  const int fd;
  sandbox::Fd owned;  // unless it is the terminal
  bool watched = false, over = false;
};

Process::Process(http::EventLoop& loop, ProcessSpec spec, int number, std::function<void()> on_gone)
    : loop_(loop), spec_(std::move(spec)), number_(number), on_gone_(std::move(on_gone)) {}
Process::~Process() = default;

Result<void> Process::connect(sandbox::CommandSpec& command, std::vector<sandbox::Fd>& theirs) {
  if (spec_.terminal) {
    CAPSTAN_TRY(auto terminal, sandbox::open_terminal(spec_.terminal->rows, spec_.terminal->columns));
    set_nonblocking(terminal.outer.get());
    terminal_ = std::move(terminal.outer);
    command.stdin_fd = command.stdout_fd = command.stderr_fd = terminal.inner.get();
    command.terminal = true;
    theirs.push_back(std::move(terminal.inner));
    sources_.push_back(std::make_unique<Source>(*this, Channel::kTerminal, terminal_.get()));
    return {};
  }
  if (spec_.input) {
    sandbox::Fd read;
    CAPSTAN_CHECK(make_pipe(read, input_));
    set_nonblocking(input_.get());
    command.stdin_fd = read.get();
    theirs.push_back(std::move(read));
  }
  for (const Channel channel : {Channel::kOut, Channel::kErr}) {
    sandbox::Fd read, write;
    CAPSTAN_CHECK(make_pipe(read, write));
    set_nonblocking(read.get());
    (channel == Channel::kOut ? command.stdout_fd : command.stderr_fd) = write.get();
    theirs.push_back(std::move(write));
    sources_.push_back(std::make_unique<Source>(*this, channel, read.get()));
    sources_.back()->owned = std::move(read);
  }
  return {};
}

Result<ProcessPtr> Process::start(http::EventLoop& loop, sandbox::Sandbox& sandbox, ProcessSpec spec, int number,
                                  ListenerPtr first, std::function<void()> on_gone) {
  auto process = std::make_shared<Process>(loop, std::move(spec), number, std::move(on_gone));
  sandbox::CommandSpec command{.argv = process->spec_.argv, .env = process->spec_.env, .cwd = process->spec_.cwd};
  command.limits.wall_ms = process->spec_.wall_ms;
  command.limits.cpu_ms = kCpuMsMax;
  std::vector<sandbox::Fd> theirs;
  CAPSTAN_CHECK(process->connect(command, theirs));
  const auto on_end = [&loop, process](const Result<sandbox::CommandResult>& result) {
    loop.post([process, result] { process->finish(result); });
  };
  CAPSTAN_TRY(process->command_, sandbox.start(command, {.on_output = {}, .on_end = on_end}));
  loop.post([process, first = std::move(first)]() mutable { process->begin(std::move(first)); });
  return process;
}

void Process::begin(ListenerPtr first) {
  begun_ = true;
  if (first) {
    first->on_begin(*this);
    listeners_.push_back(std::move(first));
  }
  if (ended_) return finish(Result<sandbox::CommandResult>(*ended_));
  for (const auto& source : sources_) source->watch();
}

void Process::listen(ListenerPtr listener) {
  loop_.post([self = shared_from_this(), listener = std::move(listener)] {
    listener->on_begin(*self);
    if (self->ended_)
      listener->on_end(*self->ended_);
    else
      self->listeners_.push_back(listener);
  });
}

void Process::forget(const ProcessListener* listener) {
  loop_.post([self = shared_from_this(), listener] {
    std::erase_if(self->listeners_, [&](const ListenerPtr& one) { return one.get() == listener; });
    if (self->waiting_ && !self->must_wait()) self->resume();
  });
}

void Process::deliver(Channel channel, std::string_view bytes) {
  bytes_out_ += static_cast<std::int64_t>(bytes.size());
  const std::vector<ListenerPtr> listeners = listeners_;  // a listener may leave meanwhile
  for (const auto& listener : listeners) listener->on_output(channel, bytes);
}

// Stops reading if some listener lags, until it has caught up.
bool Process::must_wait() {
  for (const auto& listener : listeners_) {
    if (listener->backlog_bytes() <= kBacklogBytesMax) continue;
    waiting_ = true;  // first: the listener may call back at once
    for (const auto& source : sources_) source->unwatch();
    listener->when_caught_up([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (self && self->waiting_ && !self->must_wait()) self->resume();
    });
    return true;
  }
  return false;
}

void Process::resume() {
  waiting_ = false;
  if (ended_) return;
  for (const auto& source : sources_) source->watch();
}

void Process::finish(const Result<sandbox::CommandResult>& result) {
  if (!begun_) {
    ended_ = result;
    return;  // begin() comes next
  }
  const auto keep = shared_from_this();
  for (const auto& source : sources_) {
    const std::int64_t before = bytes_out_;
    while (!source->over && source->read() && bytes_out_ - before < kLastBytesMax) {
    }
    source->unwatch();
  }
  ended_ = result;
  if (*ended_) (*ended_)->usage.output_bytes = bytes_out_;
  {
    const std::lock_guard lock(input_mutex_);
    input_.reset();
    terminal_.reset();
  }
  sources_.clear();
  std::vector<ListenerPtr> listeners;
  listeners.swap(listeners_);
  if (on_gone_) std::exchange(on_gone_, {})();  // first: who hears of the end no longer finds the process in the list
  for (const auto& listener : listeners) listener->on_end(*ended_);
}

Result<void> Process::write_input(std::string_view bytes) {
  for (int waited_ms = 0; !bytes.empty();) {
    pollfd ready{-1, POLLOUT, 0};
    {
      const std::lock_guard lock(input_mutex_);
      const int fd = spec_.terminal ? terminal_.get() : input_.get();
      if (fd < 0) return fail(Code::kConflict, "process {} has no open input", number_);
      const ssize_t count = ::write(fd, bytes.data(), bytes.size());
      if (count > 0) {
        bytes_in_ += count;
        bytes.remove_prefix(static_cast<std::size_t>(count));
        waited_ms = 0;
        continue;
      }
      if (errno == EPIPE) return fail(Code::kConflict, "process {} has closed its input", number_);
      if (errno != EAGAIN && errno != EINTR) return fail_errno("cannot write to the process", errno);
      ready.fd = ::dup(fd);
    }
    const sandbox::Fd waiting(ready.fd);
    ::poll(&ready, 1, kPollMs);
    waited_ms += kPollMs;
    if (waited_ms >= kInputWaitMs)
      return fail(Code::kTimeout, "process {} did not read its input for {} s", number_, kInputWaitMs / 1000);
  }
  return {};
}

Result<void> Process::close_input() {
  if (spec_.terminal) return write_input("\x04");  // what a person types
  const std::lock_guard lock(input_mutex_);
  if (!input_) return fail(Code::kConflict, "process {} has no open input", number_);
  input_.reset();
  return {};
}

Result<void> Process::resize(TerminalSize size) {
  const std::lock_guard lock(input_mutex_);
  if (!terminal_) return fail(Code::kConflict, "process {} has no terminal", number_);
  return sandbox::resize_terminal(terminal_.get(), size.rows, size.columns);
}

}  // namespace capstan::agents

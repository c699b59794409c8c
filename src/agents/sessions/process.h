// One command of a session: its pipes or its terminal on the event loop, and who listens.
//
//   CAPSTAN_TRY(auto process, Process::start(loop, sandbox, {.argv = {"/bin/bash", "-lc", "make"}}, 1001, listener));
//   process->write_input("yes\n");  process->signal(SIGTERM);  process->kill();
//
// Output goes to listeners as it comes. The slowest one sets the pace: while it has more than kBacklogBytesMax before
// it, nothing is read and the program waits in its write, as it would in a pipe. Without listeners output is read and
// dropped. When the command has ended, what its pipes hold is delivered, then on_end; daemons that keep them open are not
// waited for.
//
// Threads: methods from any thread; listeners are called on the loop and must not block. write_input waits for the
// program to read, at most kInputWaitMs. Ownership: keeps itself until the command has ended. Failure: as of
// sandbox/launcher.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/event_loop.h"
#include "sandbox/launcher.h"
#include "sandbox/terminal.h"

namespace capstan::agents {

inline constexpr std::size_t kBacklogBytesMax = 1u << 20;
inline constexpr int kInputWaitMs = 30'000;

enum class Channel { kOut, kErr, kTerminal };

class Process;

class ProcessListener {
 public:
  virtual ~ProcessListener() = default;
  virtual void on_begin(Process&) {}  // first
  virtual void on_output(Channel channel, std::string_view bytes) = 0;
  virtual void on_end(const Result<sandbox::CommandResult>& result) = 0;  // last
  // What it was given and has not passed on, and a call, once, when that is little again.
  virtual std::size_t backlog_bytes() { return 0; }
  virtual void when_caught_up(std::function<void()> callback) { callback(); }
};
using ListenerPtr = std::shared_ptr<ProcessListener>;  // shared by the process and who reads the answer

struct TerminalSize {
  int rows = 24, columns = 80;
};

struct ProcessSpec {
  std::vector<std::string> argv = {};
  std::vector<std::string> env = {};
  std::string cwd = "/work";
  std::string tag = {};  // the client's name for it
  bool own = false;      // this program's, not a client's: no list shows it
  bool input = false;    // stays open for write_input; else /dev/null
  std::optional<TerminalSize> terminal = std::nullopt;
  std::int64_t wall_ms = 24LL * 3600 * 1000;
};

class Process : public std::enable_shared_from_this<Process> {
 public:
  // `on_gone` is called on the loop before any listener's on_end.
  static Result<std::shared_ptr<Process>> start(http::EventLoop& loop, sandbox::Sandbox& sandbox, ProcessSpec spec,
                                                int number, ListenerPtr first, std::function<void()> on_gone);
  Process(http::EventLoop& loop, ProcessSpec spec, int number, std::function<void()> on_gone);
  ~Process();

  http::EventLoop& loop() const { return loop_; }
  int number() const { return number_; }  // unique in its session; not what the program sees as its pid
  const ProcessSpec& spec() const { return spec_; }
  void listen(ListenerPtr listener);  // from now on; on_end at once if it has ended
  void forget(const ProcessListener* listener);

  Result<void> write_input(std::string_view bytes);
  Result<void> close_input();
  Result<void> resize(TerminalSize size);
  void signal(int number) { command_->signal(number); }
  void kill() { command_->kill(); }
  std::int64_t bytes_in() const { return bytes_in_; }
  std::int64_t bytes_out() const { return bytes_out_; }

 private:
  struct Source;
  Result<void> connect(sandbox::CommandSpec& command, std::vector<sandbox::Fd>& theirs);
  void begin(ListenerPtr first);
  void deliver(Channel channel, std::string_view bytes);
  bool must_wait();
  void resume();
  void finish(const Result<sandbox::CommandResult>& result);

  http::EventLoop& loop_;
  const ProcessSpec spec_;
  const int number_;
  std::function<void()> on_gone_;
  std::unique_ptr<sandbox::Command> command_;
  std::vector<std::unique_ptr<Source>> sources_;  // of the loop, once begun; as are the next four
  std::vector<ListenerPtr> listeners_;
  bool waiting_ = false;
  bool begun_ = false;
  std::optional<Result<sandbox::CommandResult>> ended_;
  std::mutex input_mutex_;
  sandbox::Fd input_;     // under input_mutex_: a pipe's writing end; of a terminal it is `terminal_`
  sandbox::Fd terminal_;  // under input_mutex_ for writing and closing; the loop reads it
  std::atomic<std::int64_t> bytes_in_{0}, bytes_out_{0};
};
using ProcessPtr = std::shared_ptr<Process>;  // shared by the session's table, handlers and tasks of the loop

}  // namespace capstan::agents

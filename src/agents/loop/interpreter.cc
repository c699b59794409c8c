// How: the program is that of code contexts (kernel/kernel.py), started with "plain": its standard input and output are one end
// of a socket pair. Output goes to a file in the sandbox, which an event carries, or which is read from outside when the
// interpreter had to be killed. An event is as trustworthy as the code: the model's own.
#include "agents/loop/interpreter.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "agents/kernel/kernel_source.h"
#include "sandbox/root_files.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kInterruptGraceMs = 2'000;
constexpr std::int64_t kLifeMs = 7LL * 24 * 3600 * 1000;  // each run has its own limit
constexpr std::size_t kLineBytesMax = 8u << 20;
constexpr const char* kOutputFile = "/tmp/.python-output";

using Clock = std::chrono::steady_clock;

struct Cell {
  std::string output;
  std::int64_t written = 0;
  bool good = true;
};

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

enum class Read { kWhole, kLate, kEnded };

// Up to the event that ends a cell, within the time; `pending` keeps what came after a line.
Read read_cell(int fd, std::int64_t time_ms, std::string& pending, Cell& cell) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(time_ms);
  for (;;) {
    for (std::size_t end = 0; (end = pending.find('\n')) != pending.npos; pending.erase(0, end + 1)) {
      const auto event = Json::parse(std::string_view(pending).substr(0, end));
      if (!event || !event->is_object()) return Read::kEnded;
      const std::string type = event->get_string("type").value_or("");
      if (type == "stdout") cell.output = event->get_string("text").value_or("");
      if (type == "written") cell.written = event->get_int("bytes").value_or(0);
      if (type == "error") cell.good = false;
      if (type != "end_of_execution") continue;
      pending.erase(0, end + 1);
      return Read::kWhole;
    }
    if (pending.size() > kLineBytesMax) return Read::kEnded;
    if (Clock::now() >= deadline) return Read::kLate;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{fd, POLLIN, 0};
    if (::poll(&waiting, 1, static_cast<int>(std::clamp<long long>(left, 0, 3'600'000))) == 0) continue;
    std::array<char, 1 << 16> buffer;
    const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (count <= 0) return Read::kEnded;
    pending.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

Result<void> Interpreter::start() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno("cannot make a socket pair", errno);
  }
  sandbox::CommandSpec command{.argv = {"python3", "-I", "-c", std::string(kKernelSource), "plain"},
                               .limits = limits_,
                               .stdin_fd = ends[1],
                               .stdout_fd = ends[1]};
  command.limits.wall_ms = kLifeMs;
  command.limits.cpu_ms = kLifeMs;
  auto started = box_.start(command);
  ::close(ends[1]);
  if (!started) {
    ::close(ends[0]);
    return std::unexpected(std::move(started.error()).with_context("python3"));
  }
  command_ = *std::move(started);
  channel_ = ends[0];
  pending_.clear();
  return {};
}

Result<Outcome> Interpreter::run(const std::string& code, std::int64_t time_ms) {
  if (command_ == nullptr) CAPSTAN_CHECK(start());
  const bool sent = write_all(channel_, Json::object({{"code", code}}).dump() + "\n");
  Cell cell;
  Read read = sent ? read_cell(channel_, time_ms, pending_, cell) : Read::kEnded;
  const bool too_long = read == Read::kLate;
  if (too_long) {
    command_->signal(SIGINT);
    read = read_cell(channel_, kInterruptGraceMs, pending_, cell);
  }
  if (read != Read::kWhole) return ended(too_long);
  Outcome out{.output = std::move(cell.output), .ended = "exited", .exit_code = cell.good ? 0 : 1};
  out.truncated = cell.written > static_cast<std::int64_t>(out.output.size());
  if (too_long) {
    out.ended = "wall_time";
    out.output += "\n[interrupted: its time was over; variables are kept]";
  }
  if (std::exchange(lost_state_, false))
    out.output = "[a new interpreter: earlier variables are gone]\n" + out.output;
  return out;
}

// The interpreter is gone, or must go.
Result<Outcome> Interpreter::ended(bool too_long) {
  if (too_long) command_->kill();
  ::close(std::exchange(channel_, -1));
  const auto result = command_->wait();
  command_.reset();
  if (!result) return std::unexpected(result.error());
  if (result->ended == sandbox::Ended::kLost) return fail(Code::kUnavailable, "the sandbox is lost");
  lost_state_ = true;
  Outcome out{.ended = too_long ? "wall_time" : sandbox::ended_name(result->ended),
              .exit_code = result->exit_code};
  if (auto written = sandbox::read_inside(box_.root_fd(), kOutputFile, 1 << 20))
    out.output = *std::move(written);
  out.output += too_long ? "\n[killed: its time was over and it would not stop; variables are gone]"
                         : fmt::format("\n[the interpreter ended ({}); variables are gone]", out.ended);
  if (out.exit_code == 0) out.exit_code = 1;
  return out;
}

void Interpreter::stop() {
  if (command_ == nullptr) return;
  command_->kill();
  ::close(std::exchange(channel_, -1));
  [[maybe_unused]] const auto gone = command_->wait();
  command_.reset();
  lost_state_ = false;
}

}  // namespace capstan::agents::loop

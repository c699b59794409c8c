// How: descriptor 0 of the interpreter is one end of a socket pair; code goes in and answers come out as JSON
// behind four bytes of length. Output goes to a file in the sandbox, which the answer carries, or which is
// read from outside when the interpreter had to be killed. An answer is as trustworthy as the code: the
// model's own.
#include "agents/loop/interpreter.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "sandbox/root_files.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kInterruptGraceMs = 2'000;
constexpr std::int64_t kLifeMs = 7LL * 24 * 3600 * 1000;  // each run has its own limit
constexpr std::size_t kAnswerBytesMax = 8u << 20;
constexpr const char* kOutputFile = "/tmp/.python-output";

constexpr const char* kDriver = R"PY(
import ast, builtins, json, linecache, os, signal, sys, traceback, types
channel = os.dup(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
main = types.ModuleType("__main__")
main.__builtins__ = builtins
sys.modules["__main__"] = main
sys.path.insert(0, "/work")
sys.argv = [""]
count = 0

def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(channel, min(size - len(data), 1 << 16))
        if not piece:
            os._exit(0)
        data += piece
    return data

def execute(source):
    global count
    count += 1
    name = "<call %d>" % count
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, name, "exec"), main.__dict__)
    if last is not None:
        value = eval(compile(last, name, "eval"), main.__dict__)
        if value is not None:
            main._ = value
            print(repr(value))

while True:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.loads(take(int.from_bytes(take(4), "big")))
    output = os.open("/tmp/.python-output", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    good = True
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        execute(request["code"])
    except SystemExit as end:
        good = end.code in (None, 0)
        if not good and not isinstance(end.code, int):
            print(end.code)
    except BaseException as error:
        good = False
        trace = error.__traceback__
        while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<call "):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    size = os.fstat(output).st_size
    text = os.pread(output, 1 << 20, 0).decode("utf-8", "replace")
    os.close(output)
    answer = json.dumps({"good": good, "output": text, "bytes": size}).encode()
    answer = len(answer).to_bytes(4, "big") + answer
    while answer:
        answer = answer[os.write(channel, answer):]
)PY";

using Clock = std::chrono::steady_clock;

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

enum class Read { kWhole, kLate, kEnded };

Read read_until(int fd, std::size_t size, Clock::time_point deadline, std::string& out) {
  while (out.size() < size) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{fd, POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::clamp<long long>(left, 0, 3'600'000)));
    if (ready == 0) {
      if (Clock::now() >= deadline) return Read::kLate;
      continue;
    }
    std::array<char, 1 << 16> buffer;
    const ssize_t count = ::recv(fd, buffer.data(), std::min(buffer.size(), size - out.size()), 0);
    if (count <= 0) return Read::kEnded;
    out.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return Read::kWhole;
}

Read read_answer(int fd, std::int64_t time_ms, std::string& out) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(time_ms);
  std::string head;
  if (const Read read = read_until(fd, 4, deadline, head); read != Read::kWhole) return read;
  std::size_t size = 0;
  for (const char byte : head) size = size << 8 | static_cast<unsigned char>(byte);
  if (size > kAnswerBytesMax) return Read::kEnded;
  return read_until(fd, size, deadline, out);
}

}  // namespace

Result<void> Interpreter::start() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno("cannot make a socket pair", errno);
  }
  sandbox::CommandSpec command{
      .argv = {"python3", "-I", "-u", "-c", kDriver}, .limits = limits_, .stdin_fd = ends[1]};
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
  return {};
}

Result<Outcome> Interpreter::run(const std::string& code, std::int64_t time_ms) {
  if (command_ == nullptr) CAPSTAN_CHECK(start());
  const std::string request = Json::object({{"code", code}}).dump();
  std::string framed;
  for (int shift = 24; shift >= 0; shift -= 8) framed += static_cast<char>(request.size() >> shift & 0xff);
  framed += request;
  const bool sent = write_all(channel_, framed);
  std::string text;
  Read read = sent ? read_answer(channel_, time_ms, text) : Read::kEnded;
  const bool too_long = read == Read::kLate;
  if (too_long) {
    command_->signal(SIGINT);
    text.clear();
    read = read_answer(channel_, kInterruptGraceMs, text);
  }
  const auto answer = read == Read::kWhole ? Json::parse(text) : Result<Json>(Json());
  if (!answer || !answer->is_object()) return ended(too_long);
  Outcome out{.output = answer->get_string("output").value_or(""), .ended = "exited"};
  out.exit_code = answer->get_bool("good").value_or(false) ? 0 : 1;
  out.truncated = answer->get_int("bytes").value_or(0) > static_cast<std::int64_t>(out.output.size());
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

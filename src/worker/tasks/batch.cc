#include "worker/tasks/batch.h"

#include <array>
#include <csignal>
#include <utility>

#include "base/json.h"
#include "base/text.h"

namespace capstan::worker {
namespace {

constexpr std::size_t kHeadBytesMax = 256;
constexpr std::size_t kNumbers = 9;

// In a function, so that nothing of it is in the way of the code, which runs in a module of its own each
// time. What the code forks does not come back here, and ends with its task. Descriptors 0, 1 and 2 are files in
// memory, made anew for each task: what an earlier one left running writes to its own.
constexpr std::string_view kPython = R"PY(
def _batch():
    import builtins, os, sys, time, traceback, types
    keep, source = _KEEP, _SOURCE
    me, reply = os.getpid(), os.dup(1)
    tasks = os.fdopen(os.dup(0), 'rb', 1 << 16)
    files = []
    code = fault = None
    try: code = compile(source, '<code>', 'exec')
    except BaseException as error: fault = error
    def run():
        if fault is not None: raise fault
        main = types.ModuleType('__main__')
        main.__builtins__ = builtins
        sys.modules['__main__'] = main
        exec(code, main.__dict__)
    while True:
        head = tasks.readline().split()
        if not head: break
        data = tasks.read(int(head[3]))
        for file in files: os.close(file)
        files = [os.memfd_create(name) for name in ('in', 'out', 'err')]
        for number, file in enumerate(files): os.dup2(file, number)
        if data:
            os.write(0, data)
            os.lseek(0, 0, 0)
        os.environ['CAPSTAN_TASK_INDEX'] = head[1].decode()
        os.environ['CAPSTAN_TASK_ATTEMPT'] = head[2].decode()
        sys.stdin = open(0, 'r', encoding='utf-8', errors='surrogateescape', closefd=False)
        sys.stdout = open(1, 'w', encoding='utf-8', errors='surrogateescape', closefd=False)
        sys.stderr = open(2, 'w', encoding='utf-8', errors='backslashreplace', closefd=False)
        status, begun, used = 0, time.monotonic_ns(), time.process_time_ns()
        try:
            run()
        except SystemExit as exit:
            if exit.code is None: status = 0
            elif isinstance(exit.code, int): status = exit.code & 255
            else:
                print(exit.code, file=sys.stderr)
                status = 1
        except BaseException as error:
            status, trace = 1, error.__traceback__
            for _ in range(2): trace = trace.tb_next if trace is not None else None
            try: traceback.print_exception(type(error), error, trace)
            except BaseException: pass
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            status = status or 120
        if os.getpid() != me: os._exit(status)
        try: os.kill(-1, 9)
        except ProcessLookupError: pass
        sizes = [os.fstat(file).st_size for file in files]
        out = os.pread(files[1], keep, 0)
        err = os.pread(files[2], keep - len(out), 0)
        answer = b'R %s %d 0 %d 0 %d %d %d %d\n' % (head[1], status, (time.process_time_ns() - used) // 1000,
            (time.monotonic_ns() - begun) // 1000, len(out), len(err), sizes[1] + sizes[2]) + out + err
        while answer: answer = answer[os.write(reply, answer):]
    os._exit(0)
_batch()
)PY";

std::string python_string(const std::string& text) {
  std::string out = "b'";
  for (const unsigned char c : text) {
    if (c == '\\' || c == '\'') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "'";
}

}  // namespace

void add_task(std::string& list, std::int64_t index, std::int64_t number, std::string_view input) {
  list += fmt::format("T {} {} {}\n", index, number, input.size());
  list += input;
}

std::string python_batch(const std::string& code, std::int64_t output_bytes) {
  std::string source(kPython);
  const auto put = [&](std::string_view mark, const std::string& value) {
    source.replace(source.find(mark), mark.size(), value);
  };
  put("_KEEP", std::to_string(output_bytes));
  put("_SOURCE", python_string(code));
  return source;
}

void BatchAnswers::write(std::string_view piece) {
  const std::lock_guard lock(mutex_);
  if (broken_) return;
  text_ += piece;
  const std::size_t before = ready_.size();
  while (!broken_ && read_one()) {
  }
  text_.erase(0, std::exchange(at_, 0));
  if (ready_.size() != before || broken_) changed_.notify_all();
}

// Takes the next whole answer of the text; false if there is none.
bool BatchAnswers::read_one() {
  const std::string_view text = std::string_view(text_).substr(at_);
  const std::size_t end = text.find('\n');
  if (end == text.npos || end > kHeadBytesMax) {
    broken_ = text.size() > kHeadBytesMax;
    return false;
  }
  std::array<std::int64_t, kNumbers> numbers{};
  const auto words = split(text.substr(0, end), ' ');
  broken_ = words.size() != kNumbers + 1 || words[0] != "R" || next_ >= indices_.size();
  for (std::size_t i = 0; i < kNumbers && !broken_; ++i) {
    const auto number = parse_int(words[i + 1]);
    broken_ = !number || *number < 0;
    numbers[i] = number.value_or(0);
  }
  const auto [index, code, signal, cpu_us, peak_kib, wall_us, out, err, written] = numbers;
  broken_ = broken_ || index != indices_[next_] || code > 255 || signal > 64 || out > output_bytes_ ||
            err > output_bytes_ - out || written < out + err;
  if (broken_) return false;
  const auto body = static_cast<std::size_t>(out + err);
  if (text.size() < end + 1 + body) return false;
  TaskOutcome outcome{
      .index = index, .exit_code = static_cast<int>(code), .signal = static_cast<int>(signal)};
  outcome.cpu_us = cpu_us;
  outcome.wall_us = wall_us;
  outcome.memory_peak_bytes = peak_kib << 10;
  outcome.out = text.substr(end + 1, static_cast<std::size_t>(out));
  outcome.err = text.substr(end + 1 + static_cast<std::size_t>(out), static_cast<std::size_t>(err));
  outcome.truncated = written > out + err;
  outcome.bytes = written;
  outcome.end = signal == SIGXCPU   ? protocol::TaskEnd::kCpuTime
                : signal == SIGXFSZ ? protocol::TaskEnd::kOutput
                : signal != 0       ? protocol::TaskEnd::kSignal
                : code != 0         ? protocol::TaskEnd::kExit
                                    : protocol::TaskEnd::kSucceeded;
  at_ += end + 1 + body;
  ready_.push_back(std::move(outcome));
  ++next_;
  return true;
}

void BatchAnswers::end() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

std::vector<TaskOutcome> BatchAnswers::take(std::int64_t wait_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                    [&] { return !ready_.empty() || ended_ || broken_; });
  return std::exchange(ready_, {});
}

bool BatchAnswers::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

bool BatchAnswers::broken() const {
  const std::lock_guard lock(mutex_);
  return broken_;
}

}  // namespace capstan::worker

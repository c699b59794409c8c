// How it works: the child says one line on a pipe ("ok HASH TEXT_BYTES FILE_BYTES" or "failed CODE MESSAGE")
// and ends; the pipe's end tells the parent that it has.
#include "journal/snapshotter.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "base/text.h"
#include "journal/huge_pages.h"

namespace capstan::journal {
namespace {

constexpr int kNice = 10;
constexpr std::size_t kSaidBytesMax = 4'096;

// The parent's sockets, locks and pipes must not live on in the child.
void close_all_but(std::array<int, 3> keep) {
  std::ranges::sort(keep);
  unsigned from = 0;
  for (const int fd : keep) {
    const auto at = static_cast<unsigned>(fd);
    if (at > from) ::close_range(from, at - 1, 0);
    from = at + 1;
  }
  ::close_range(from, ~0u, 0);
}

void become_child(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::prctl(PR_SET_NAME, "snapshot");
  ::setpriority(PRIO_PROCESS, 0, kNice);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);  // the parent's to answer
  ::signal(SIGPIPE, SIG_IGN);
  const int score = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0) {
    (void)!::write(score, "1000", 4);
    ::close(score);
  }
}

std::string line_of(const Result<SnapshotFile>& result) {
  if (result) return fmt::format("ok {} {} {}", result->state_hash, result->text_bytes, result->file_bytes);
  return fmt::format("failed {} {}", static_cast<int>(result.error().code), result.error().message);
}

Result<SnapshotFile> result_of(std::string_view line) {
  const auto words = split(line, ' ');
  if (words.size() == 4 && words[0] == "ok") {
    const auto text = parse_int(words[2]), file = parse_int(words[3]);
    if (text && file) return SnapshotFile{std::string(words[1]), *text, *file};
  }
  if (words.size() > 2 && words[0] == "failed") {
    const Code code =
        parse_int(words[1]) == static_cast<int>(Code::kExhausted) ? Code::kExhausted : Code::kIo;
    return fail(code, "{}", line.substr(words[0].size() + words[1].size() + 2));
  }
  return fail(Code::kIo, "the process that wrote the snapshot died");
}

}  // namespace

void Snapshotter::cancel() {
  if (!busy()) return;
  ::kill(child_, SIGKILL);
  reap();
  ::unlink(SnapshotFileWriter::temporary_path(path_).c_str());
}

void Snapshotter::reap() {
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
  ::close(pipe_);
  child_ = pipe_ = -1;
}

void Snapshotter::prepare() {
  gathered_ = false;
  gatherer_ = std::jthread([this] {  // joins the one before
    gather_huge_pages();
    gathered_ = true;
  });
}

Result<void> Snapshotter::start(const Task& task, std::int64_t now_ms, const TextWriter& write) {
  CAPSTAN_ASSERT(!busy());
  CAPSTAN_TRY(auto writer, SnapshotFileWriter::prepare(task.path));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("cannot make a pipe", errno);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) {
    become_child(parent);
    close_all_but({writer.file_fd(), writer.directory_fd(), ends[1]});
    for (const std::string& path : task.remove) ::unlink(path.c_str());
    const std::string line = line_of(writer.write(write)).substr(0, kSaidBytesMax);
    (void)!::write(ends[1], line.data(), line.size());
    ::_exit(0);
  }
  const int error = errno;
  ::close(ends[1]);
  if (child < 0) {
    ::close(ends[0]);
    return fail_errno("cannot start a process for the snapshot", error);
  }
  writer.release();
  child_ = child;
  pipe_ = ends[0];
  path_ = task.path;
  said_.clear();
  timeout_ms_ = task.timeout_ms;
  deadline_ms_ = now_ms + task.timeout_ms;
  return {};
}

std::optional<Result<SnapshotFile>> Snapshotter::poll(std::int64_t now_ms) {
  if (!busy()) return std::nullopt;
  char bytes[kSaidBytesMax];
  ssize_t got = 0;
  while ((got = ::read(pipe_, bytes, sizeof bytes)) > 0) said_.append(bytes, static_cast<std::size_t>(got));
  const bool late = got < 0 && now_ms >= deadline_ms_;
  if (got < 0 && !late) return std::nullopt;
  if (late) ::kill(child_, SIGKILL);
  reap();
  Result<SnapshotFile> result =
      late ? fail(Code::kTimeout, "the snapshot was not written within {} ms", timeout_ms_)
           : result_of(said_);
  if (!result) ::unlink(SnapshotFileWriter::temporary_path(path_).c_str());
  return result;
}

}  // namespace capstan::journal

#include "worker/tasks/results_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/json.h"
#include "base/text.h"

namespace capstan::worker {
namespace {

constexpr std::string_view kBegin = "{\"index\":";
constexpr std::size_t kReadBytes = 1 << 20;
constexpr std::size_t kLineBytesMax = 256 << 20;

std::optional<std::int64_t> index_of(std::string_view line) {
  if (!line.starts_with(kBegin) || !line.ends_with('}')) return std::nullopt;
  line.remove_prefix(kBegin.size());
  return parse_int(line.substr(0, line.find(',')));
}

void count_line(std::string_view line, protocol::TaskTally& tally) {
  const auto json = Json::parse(line);
  if (!json) return;
  TaskOutcome outcome;
  const std::string end = json->get_string("end").value_or("");
  for (std::size_t i = 0; i < protocol::kTaskEnds; ++i) {
    if (protocol::task_end_name(static_cast<protocol::TaskEnd>(i)) == end)
      outcome.end = static_cast<protocol::TaskEnd>(i);
  }
  outcome.index = json->get_int("index").value_or(0);
  outcome.exit_code = static_cast<int>(json->get_int("exit_code").value_or(0));
  outcome.signal = static_cast<int>(json->get_int("signal").value_or(0));
  outcome.tries = json->get_int("tries").value_or(1);
  outcome.cpu_us = json->get_int("cpu_us").value_or(0);
  outcome.wall_us = json->get_int("wall_us").value_or(0);
  outcome.memory_peak_bytes = json->get_int("memory_peak_bytes").value_or(0);
  outcome.bytes = json->get_int("bytes").value_or(0);
  outcome.message = json->get_string("message").value_or("");
  outcome.count_into(tally);
}

}  // namespace

std::string TaskOutcome::line() const {
  std::string text = fmt::format("{}{},\"ok\":{},\"end\":\"{}\",\"exit_code\":{}", kBegin, index, good(),
                                 protocol::task_end_name(end), exit_code);
  const auto number = [&](std::string_view key, std::int64_t value) {
    if (value != 0) text += fmt::format(",\"{}\":{}", key, value);
  };
  number("signal", signal);
  text += fmt::format(",\"tries\":{}", tries);
  number("cpu_us", cpu_us);
  number("wall_us", wall_us);
  number("memory_peak_bytes", memory_peak_bytes);
  number("bytes", bytes);
  if (truncated) text += ",\"truncated\":true";
  const auto add = [&](std::string_view key, const std::string& value) {
    text += fmt::format(",\"{}\":", key);
    append_json_string(text, value);
  };
  if (!message.empty()) add("message", message);
  add("out", out);
  if (!err.empty()) add("err", err);
  text += "}\n";
  return text;
}

std::string TaskOutcome::failure_text() const {
  using protocol::TaskEnd;
  switch (end) {
    case TaskEnd::kSucceeded:
      return "";
    case TaskEnd::kExit:
      return fmt::format("task {} exited with code {}", index, exit_code);
    case TaskEnd::kSignal:
      return fmt::format("task {} ended by signal {}", index, signal);
    case TaskEnd::kMemory:
      return fmt::format("task {} was killed at its memory limit", index);
    case TaskEnd::kWallTime:
      return fmt::format("task {} ran longer than its timeout", index);
    case TaskEnd::kCpuTime:
      return fmt::format("task {} used more CPU time than it may", index);
    case TaskEnd::kOutput:
      return fmt::format("task {} wrote more than it may", index);
    case TaskEnd::kNoStart:
      return fmt::format("task {} could not start: {}", index, message.substr(0, 500));
  }
  return "";
}

void TaskOutcome::count_into(protocol::TaskTally& tally) const {
  ++tally.ended[static_cast<std::size_t>(end)];
  tally.retries += tries - 1;
  tally.cpu_us += cpu_us;
  tally.wall_us += wall_us;
  tally.memory_mib_ms += ((memory_peak_bytes >> 10) * (wall_us / 1000) + 1023) >> 10;
  tally.memory_peak_bytes = std::max(tally.memory_peak_bytes, memory_peak_bytes);
  tally.bytes += bytes;
  if (!good()) tally.failure = failure_text();
}

Result<std::filesystem::path> ResultsFile::path_of(const Places& places, const RankUser& user,
                                                   const std::string& name, const std::string& id) {
  CAPSTAN_TRY(const auto directory, job_directory(places, user, name));
  return directory / fmt::format("results-{}.jsonl", id);
}

Result<std::shared_ptr<ResultsFile>> ResultsFile::open(const Places& places, const RankUser& user,
                                                       const std::string& name, const std::string& id) {
  CAPSTAN_TRY(const auto path, path_of(places, user, name, id));
  const AsUser as(user);
  Descriptor file(
      ::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0) return fail_errno("cannot open " + path.string(), errno);
  if (!S_ISREG(status.st_mode)) return fail(Code::kDenied, "{} is not a regular file", path.string());
  // A line that a crash tore must not swallow the next one.
  char last = '\n';
  if (status.st_size > 0) (void)!::pread(file.get(), &last, 1, status.st_size - 1);
  if (last != '\n') (void)!::write(file.get(), "\n", 1);
  return std::shared_ptr<ResultsFile>(new ResultsFile(std::move(file)));
}

Result<void> ResultsFile::append(const std::string& lines) {
  const std::lock_guard lock(append_);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) return fail_errno("cannot examine results", errno);
  for (std::size_t done = 0; done < lines.size();) {
    const ssize_t count = ::write(file_.get(), lines.data() + done, lines.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      (void)!::ftruncate(file_.get(), status.st_size);
      return fail_errno("cannot write results", error);
    }
    done += static_cast<std::size_t>(count);
  }
  appended_ += static_cast<std::int64_t>(lines.size());
  return {};
}

Result<void> ResultsFile::sync() {
  const auto appended = [this] {
    const std::lock_guard lock(append_);
    return appended_;
  };
  const std::int64_t mine = appended();
  const std::lock_guard lock(sync_);
  if (synced_ >= mine && mine > 0) return {};
  const std::int64_t all = appended();
  if (::fdatasync(file_.get()) != 0) return fail_errno("cannot make results durable", errno);
  synced_ = all;
  return {};
}

Result<ResultsFile::Recorded> ResultsFile::recorded(std::int64_t first, std::int64_t count) const {
  Recorded found;
  std::string rest;
  std::string buffer(kReadBytes, '\0');
  for (off_t at = 0;;) {
    const ssize_t size = ::pread(file_.get(), buffer.data(), buffer.size(), at);
    if (size < 0) return fail_errno("cannot read results", errno);
    if (size == 0) return found;
    at += size;
    rest.append(buffer, 0, static_cast<std::size_t>(size));
    if (rest.size() > kLineBytesMax) rest.clear();
    std::size_t begin = 0;
    for (std::size_t end; (end = rest.find('\n', begin)) != rest.npos; begin = end + 1) {
      const std::string_view line(rest.data() + begin, end - begin);
      const auto index = index_of(line);
      if (!index || *index < first || *index >= first + count) continue;
      if (found.indices.insert(*index).second) count_line(line, found.tally);
    }
    rest.erase(0, begin);
  }
}

}  // namespace capstan::worker

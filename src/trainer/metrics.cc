// How it works: the files are opened for appending; a line is one write, so a killed process leaves at most
// one torn line at the end, which the next open drops together with the lines past the checkpoint.
#include "trainer/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "base/file.h"
#include "base/text.h"

namespace capstan::trainer {
namespace {

constexpr std::uint64_t kMetricsBytesMax = std::uint64_t{4} << 30;

Result<void> cut_after(const std::filesystem::path& path, std::uint64_t step) {
  Result<std::string> text = read_file(path, kMetricsBytesMax);
  if (!text && text.error().code == Code::kNotFound) return {};
  if (!text) return std::unexpected(text.error());
  std::size_t keep = 0;
  std::size_t begin = 0;
  for (std::size_t end = text->find('\n'); end != std::string::npos; end = text->find('\n', begin)) {
    const Result<Json> line = Json::parse(std::string_view(*text).substr(begin, end - begin));
    const std::optional<std::int64_t> at = line ? line->get_int("step") : std::nullopt;
    if (!at || *at < 0 || static_cast<std::uint64_t>(*at) > step) break;
    begin = end + 1;
    keep = begin;
  }
  if (keep == text->size()) return {};
  return write_file_atomic(path, std::string_view(*text).substr(0, keep));
}

Result<int> open_to_append(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return std::unexpected(fail_errno(fmt::format("cannot open {}", path.string()), errno).error());
  return fd;
}

Result<void> append(int fd, const Json& line) {
  std::string text = line.dump();
  text.push_back('\n');
  const ssize_t wrote = ::write(fd, text.data(), text.size());
  if (wrote != static_cast<ssize_t>(text.size()))
    return fail_errno("cannot write metrics", wrote < 0 ? errno : ENOSPC);
  return {};
}

}  // namespace

Result<Metrics> Metrics::open(const std::filesystem::path& folder, std::uint64_t step) {
  CAPSTAN_CHECK(cut_after(folder / "metrics.jsonl", step));
  CAPSTAN_CHECK(cut_after(folder / "timing.jsonl", std::numeric_limits<std::uint64_t>::max()));
  CAPSTAN_TRY(const int metrics, open_to_append(folder / "metrics.jsonl"));
  Metrics opened(metrics, -1);
  CAPSTAN_TRY(opened.timing_, open_to_append(folder / "timing.jsonl"));
  return opened;
}

Metrics::Metrics(Metrics&& other) noexcept
    : metrics_(std::exchange(other.metrics_, -1)), timing_(std::exchange(other.timing_, -1)) {}

Metrics& Metrics::operator=(Metrics&& other) noexcept {
  std::swap(metrics_, other.metrics_);
  std::swap(timing_, other.timing_);
  return *this;
}

Metrics::~Metrics() {
  if (metrics_ >= 0) ::close(metrics_);
  if (timing_ >= 0) ::close(timing_);
}

Result<void> Metrics::record(const Json& line) { return append(metrics_, line); }

Result<void> Metrics::sync() {
  if (::fsync(metrics_) != 0) return fail_errno("cannot sync metrics", errno);
  return {};
}

Result<void> Metrics::record_timing(const Json& line) { return append(timing_, line); }

}  // namespace capstan::trainer

#include "worker/tasks/task_input.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "worker/tasks/chunk_spec.h"

namespace capstan::worker {
namespace {

constexpr std::size_t kReadBytes = 256 << 10;

// Advances `at` over `count` lines; false if the file ends before.
Result<bool> skip_lines(int file, off_t& at, std::int64_t count) {
  std::string buffer(kReadBytes, '\0');
  while (count > 0) {
    const ssize_t size = ::pread(file, buffer.data(), buffer.size(), at);
    if (size < 0) return fail_errno("cannot read", errno);
    if (size == 0) return false;
    const std::string_view text(buffer.data(), static_cast<std::size_t>(size));
    std::size_t used = 0;
    while (count > 0) {
      const std::size_t end = text.find('\n', used);
      if (end == text.npos) {
        used = text.size();
        break;
      }
      used = end + 1;
      --count;
    }
    at += static_cast<off_t>(used);
  }
  return true;
}

Result<std::string> read_line(int file, off_t at) {
  std::string line, buffer(16 << 10, '\0');
  for (;;) {
    const ssize_t size = ::pread(file, buffer.data(), buffer.size(), at);
    if (size < 0) return fail_errno("cannot read", errno);
    const std::string_view text(buffer.data(), static_cast<std::size_t>(size));
    const std::size_t end = text.find('\n');
    line += text.substr(0, end);
    if (size == 0 && line.empty()) return fail(Code::kNotFound, "it has no such line");
    if (size == 0 || end != text.npos) return line;
    if (static_cast<std::int64_t>(line.size()) > kInputBytesMax)
      return fail(Code::kExhausted, "the line has more than {} bytes", kInputBytesMax);
    at += size;
  }
}

}  // namespace

Result<Descriptor> memory_file(std::string_view bytes) {
  Descriptor file(::memfd_create("capstan-input", MFD_CLOEXEC));
  if (!file) return fail_errno("cannot make a file in memory", errno);
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count <= 0) return fail_errno("cannot fill a file in memory", errno);
    done += static_cast<std::size_t>(count);
  }
  ::lseek(file.get(), 0, SEEK_SET);
  return file;
}

Result<Descriptor> TaskInput::open(const std::string& path) const {
  const AsUser as(user_);
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (!file || ::fstat(file.get(), &status) != 0) return fail_errno("cannot open the input " + path, errno);
  if (!S_ISREG(status.st_mode)) return fail(Code::kDenied, "the input {} is not a regular file", path);
  return file;
}

// The offset of the last indexed line at or before `index`.
Result<off_t> TaskInput::offset_near(std::int64_t index) {
  if (!lines_) {
    CAPSTAN_TRY(lines_, open(pattern_));
  }
  const auto wanted = static_cast<std::size_t>(index / kStride);
  while (offsets_.size() <= wanted) {
    off_t at = offsets_.back();
    CAPSTAN_TRY(const bool there, skip_lines(lines_.get(), at, kStride));
    if (!there) return fail(Code::kNotFound, "it has no such line");
    offsets_.push_back(at);
  }
  return offsets_[wanted];
}

Result<std::string> TaskInput::line(std::int64_t index) {
  const auto found = [&]() -> Result<std::string> {
    off_t at = 0;
    int file = -1;
    {
      const std::lock_guard lock(mutex_);
      CAPSTAN_TRY(at, offset_near(index));
      file = lines_.get();
    }
    CAPSTAN_TRY(const bool there, skip_lines(file, at, index % kStride));
    if (!there) return fail(Code::kNotFound, "it has no such line");
    return read_line(file, at);
  }();
  if (found) return *found;
  return std::unexpected(
      Error{found.error().code,
            fmt::format("line {} of the input {}: {}", index + 1, pattern_, found.error().message),
            {}});
}

Result<std::string> TaskInput::bytes(std::int64_t index) {
  if (pattern_.empty()) return std::string();
  const std::string path = with_index(pattern_, index);
  if (path == pattern_) return line(index);
  CAPSTAN_TRY(const Descriptor file, open(path));
  std::string text, buffer(64 << 10, '\0');
  for (ssize_t size; (size = ::read(file.get(), buffer.data(), buffer.size())) > 0;) {
    text.append(buffer, 0, static_cast<std::size_t>(size));
    if (static_cast<std::int64_t>(text.size()) > kInputBytesMax)
      return fail(Code::kExhausted, "the input {} has more than the {} bytes that a task of a batch may have",
                  path, kInputBytesMax);
  }
  return text;
}

Result<Descriptor> TaskInput::descriptor(std::int64_t index) {
  const std::string path = with_index(pattern_, index);
  if (path != pattern_) return open(path);
  CAPSTAN_TRY(const std::string text, line(index));
  return memory_file(text);
}

}  // namespace capstan::worker

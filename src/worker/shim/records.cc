// How it works: JSON is written by hand (integers, booleans and one escaped string), so the shim needs no
// library.
#include "worker/shim/records.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace capstan::shim {
namespace {

void append_escaped(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte >= 0x7F) {
      out.push_back('?');  // paths and messages of strerror: nothing else is expected here
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

std::int64_t clock_ms(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

// The fields of /proc/PID/stat after the command's name, which may hold spaces and parentheses itself:
// index 0 is field 3, the state. False if there is no such process.
bool read_stat(pid_t pid, char (&buffer)[1024], char*& fields) {
  char path[48];
  std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(pid));
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t count = ::read(fd, buffer, sizeof buffer - 1);
  ::close(fd);
  if (count <= 0) return false;
  buffer[count] = '\0';
  char* name_end = std::strrchr(buffer, ')');
  if (name_end == nullptr || name_end[1] == '\0') return false;
  fields = name_end + 2;
  return true;
}

}  // namespace

std::string to_json(const ExitRecord& record) {
  std::string out = "{";
  if (!record.start_error.empty()) {
    out += "\"start_error\":";
    append_escaped(out, record.start_error);
    out += record.start_retryable ? ",\"start_retryable\":true" : ",\"start_retryable\":false";
  } else if (record.lost) {
    out += "\"lost\":true";
  } else if (record.signal != 0) {
    out += "\"signal\":" + std::to_string(record.signal);
  } else {
    out += "\"exit_code\":" + std::to_string(record.exit_code);
  }
  out += ",\"ended_ms\":" + std::to_string(record.ended_ms);
  out += record.oom ? ",\"oom\":true" : ",\"oom\":false";
  out += record.stopped ? ",\"stopped\":true" : ",\"stopped\":false";
  out += record.timed_out ? ",\"timed_out\":true" : ",\"timed_out\":false";
  return out + "}\n";
}

bool write_durably(int directory_fd, const char* name, std::string_view bytes) {
  const std::string temporary = std::string(name) + ".tmp";
  ::unlinkat(directory_fd, temporary.c_str(), 0);  // of an earlier try
  const int fd = ::openat(directory_fd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool good = true;
  while (good && !bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    good = written > 0;
    if (good) bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  good = good && ::fsync(fd) == 0;
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return good && ::renameat(directory_fd, temporary.c_str(), directory_fd, name) == 0 &&
         ::fsync(directory_fd) == 0;
}

std::uint64_t start_ticks(pid_t pid) {
  char buffer[1024];
  char* fields = nullptr;
  if (!read_stat(pid, buffer, fields) || fields[0] == 'Z' || fields[0] == 'X') return 0;
  for (int field = 3; field < 22; ++field) {
    fields = std::strchr(fields, ' ');
    if (fields == nullptr) return 0;
    ++fields;
  }
  return std::strtoull(fields, nullptr, 10);
}

pid_t parent_of(pid_t pid) {
  char buffer[1024];
  char* fields = nullptr;
  if (!read_stat(pid, buffer, fields)) return 0;
  return static_cast<pid_t>(std::strtol(fields + 2, nullptr, 10));
}

std::int64_t unix_time_ms() { return clock_ms(CLOCK_REALTIME); }
std::int64_t monotonic_ms() { return clock_ms(CLOCK_BOOTTIME); }

}  // namespace capstan::shim

#include "gateway/access_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "base/json.h"
#include "base/log.h"

namespace capstan::gateway {
namespace {

constexpr int kFlushMs = 250;
constexpr std::size_t kGatheredMax = 256u << 10;

std::int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void append_integer(std::string& out, std::int64_t value) {
  std::array<char, 24> digits;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

void text(std::string& out, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  out.append(",\"").append(name).append("\":");
  append_json_string(out, value);
}

void number(std::string& out, std::string_view name, std::int64_t value) {
  out.append(",\"").append(name).append("\":");
  append_integer(out, value);
}

}  // namespace

AccessLog::~AccessLog() { stop(); }

void AccessLog::start_on(http::EventLoop& loop) {
  timer_ = std::make_unique<http::EventLoop::Timer>(loop, [this] { flush(); });
}

void AccessLog::stop() {
  flush();
  timer_.reset();
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void AccessLog::write(const Settlement& settlement, const Caller* caller, bool stream, std::string_view traceparent) {
  const std::size_t start = gathered_.size();
  std::string& out = gathered_;
  out.append("{\"time_ms\":");
  append_integer(out, unix_ms());
  text(out, "id", settlement.request_id);
  text(out, "path", settlement.path);
  number(out, "status", settlement.status);
  text(out, "model", settlement.model);
  text(out, "replica", settlement.replica);
  if (caller != nullptr) {
    text(out, "organisation", caller->organisation);
    text(out, "project", caller->project);
    text(out, "key", caller->key_id);
  }
  out += stream ? ",\"stream\":true" : ",\"stream\":false";
  number(out, "prompt_tokens", settlement.usage.prompt_tokens);
  number(out, "cached_tokens", settlement.usage.cached_tokens);
  number(out, "completion_tokens", settlement.usage.completion_tokens);
  number(out, "queued_ms", settlement.queued_ms);
  number(out, "first_byte_ms", settlement.first_byte_ms);
  number(out, "total_ms", settlement.total_ms);
  text(out, "traceparent", traceparent);
  out += "}\n";
  if (path_.empty()) {
    log_line(LogLevel::kInfo, "request", std::string_view(out).substr(start, out.size() - start - 1));
    out.clear();
  } else if (out.size() > kGatheredMax || !timer_) {
    flush();
  } else if (start == 0) {
    timer_->arm(kFlushMs);
  }
}

bool AccessLog::open() {
  if (fd_ >= 0 && file_bytes_ >= kFileBytesMax) {
    ::close(std::exchange(fd_, -1));
    std::rename(path_.c_str(), (path_ + ".1").c_str());
  }
  if (fd_ >= 0) return true;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  struct stat info {};
  if (fd_ < 0 || ::fstat(fd_, &info) != 0) return false;
  file_bytes_ = static_cast<std::size_t>(info.st_size);
  return true;
}

void AccessLog::flush() {
  if (gathered_.empty()) return;
  const bool good = open() && ::write(fd_, gathered_.data(), gathered_.size()) == static_cast<ssize_t>(gathered_.size());
  if (!good && !std::exchange(failed_, true)) log_error("lines of the access log are lost", "file={}", path_);
  file_bytes_ += gathered_.size();
  gathered_.clear();
}

}  // namespace capstan::gateway

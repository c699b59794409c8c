// One JSON object a request, on a line of its own: what came, what was answered, what it used. No bodies, no keys.
//
// Lines are gathered and written a few times a second, so that none costs a system call. Threads: of the event
// loop.  Bounds: the file is put aside at kFileBytesMax (`.1`, one is kept).  Failure: lines that cannot be written are
// dropped, and the log says so once.
#pragma once

#include <memory>
#include <string>

#include "gateway/admission.h"
#include "http/event_loop.h"

namespace capstan::gateway {

class AccessLog {
 public:
  static constexpr std::size_t kFileBytesMax = 64u << 20;

  explicit AccessLog(std::string path) : path_(std::move(path)) {}  // empty: lines go to the process's log
  ~AccessLog();
  void start_on(http::EventLoop& loop);
  void stop();  // writes what is gathered
  void write(const Settlement& settlement, const Caller* caller, bool stream, std::string_view traceparent);

 private:
  void flush();
  bool open();
  std::string path_;
  std::string gathered_;
  std::unique_ptr<http::EventLoop::Timer> timer_;
  int fd_ = -1;
  std::size_t file_bytes_ = 0;
  bool failed_ = false;
};

}  // namespace capstan::gateway

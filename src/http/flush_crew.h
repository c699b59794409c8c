// Threads that help an event loop with its writes: the kernel's part of a small write is most of what a streamed token costs.
//
// Threads: send() by the loop, which stands still meanwhile.  Cost: one lock per flusher; helpers are started by the first
// send() and woken by each.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace capstan::http {

// Output gathered while a few events are handled, written in three steps.
class Flusher {
 public:
  virtual bool begin_flush() = 0;  // false: there is nothing to send, or it is sent already
  virtual void send() = 0;         // by any thread: only what is the flusher's own may be touched
  virtual void end_flush() = 0;

 protected:
  ~Flusher() = default;
};

class FlushCrew {
 public:
  FlushCrew() = default;
  ~FlushCrew();
  FlushCrew(const FlushCrew&) = delete;
  FlushCrew& operator=(const FlushCrew&) = delete;

  // Returns when all have been sent.
  void send(std::span<const std::shared_ptr<Flusher>> flushers);

 private:
  void help();
  void send_some(std::unique_lock<std::mutex>& lock);

  std::vector<std::thread> helpers_;
  bool started_ = false;
  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  // Under mutex_:
  std::span<const std::shared_ptr<Flusher>> flushers_;
  std::size_t next_ = 0;
  int under_way_ = 0;
  bool leaving_ = false;
};

}  // namespace capstan::http

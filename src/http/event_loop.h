// One thread's event loop: sockets that are ready, timers, tasks from other threads.
//
//   EventLoop loop;
//   std::thread thread([&] { loop.run(); });
//   loop.post([] { … });   // from any thread
//   loop.stop();
//
// Level-triggered epoll with lasting registrations, so a request on a kept connection costs no system call but
// its reads, its writes and its share of epoll_wait (docs/decisions/0005-own-event-loop.md). Everything but post(),
// in_loop() and stop() belongs to the loop's thread. A task that blocks holds up every connection.
// Failure: a system without epoll or descriptors is a bug of ours at this point (asserts).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "http/flush_crew.h"

struct epoll_event;

namespace capstan::http {

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  void run();   // until stop(); the caller's thread is the loop's from then on
  void stop();  // from any thread
  // Runs what has been posted and refuses (destroys) what comes later. After run() has returned.
  void close();

  void post(std::function<void()> task);  // from any thread
  bool in_loop() const { return std::this_thread::get_id() == thread_.load(std::memory_order_relaxed); }
  std::int64_t now_ms() const { return now_ms_; }  // steady, of this turn

  // Called with EPOLLIN, EPOLLOUT … as they are ready.
  class Watcher {
   public:
    virtual void on_ready(std::uint32_t events) = 0;

   protected:
    ~Watcher() = default;
  };
  void watch(int fd, std::uint32_t events, Watcher& watcher);
  void rewatch(int fd, std::uint32_t events, Watcher& watcher);
  // No more calls, not even for events already fetched. Before closing the descriptor.
  void unwatch(int fd, Watcher& watcher);

  // Writes once after the few events that are being handled.
  void flush_later(std::shared_ptr<Flusher> flusher) { flushers_.push_back(std::move(flusher)); }

  // Calls back once when its time is over. Arming again later than before costs nothing.
  class Timer {
   public:
    Timer(EventLoop& loop, std::function<void()> callback) : loop_(loop), callback_(std::move(callback)) {}
    ~Timer() { unfile(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    void arm(std::int64_t after_ms);
    void disarm() { deadline_ms_ = kNever; }
    // Disarmed, and unknown to the loop until it is armed again: it may then die on any thread.
    void cancel() {
      disarm();
      unfile();
    }

   private:
    friend class EventLoop;
    static constexpr std::int64_t kNever = INT64_MAX;
    void file(std::int64_t at_ms);
    void unfile();
    EventLoop& loop_;
    std::function<void()> callback_;
    std::int64_t deadline_ms_ = kNever;
    std::int64_t filed_ms_ = kNever;  // where it stands in the loop's set; never later than the deadline
  };

 private:
  void run_posted();
  void run_flushers();
  void run_timers();
  int wait_ms() const;

  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  std::atomic<std::thread::id> thread_;
  std::atomic<bool> stopping_{false};
  std::int64_t now_ms_ = 0;
  std::unique_ptr<epoll_event[]> ready_;
  int ready_count_ = 0;
  int ready_next_ = 0;
  std::vector<std::shared_ptr<Flusher>> flushers_;
  std::vector<std::shared_ptr<Flusher>> flushing_;
  FlushCrew crew_;
  std::set<std::pair<std::int64_t, Timer*>> timers_;
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // under mutex_
  bool closed_ = false;                        // under mutex_
  std::atomic<bool> woken_{false};
};

}  // namespace capstan::http

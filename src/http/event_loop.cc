// How: epoll_wait, then each ready descriptor's watcher, the writes that they gathered following a few of them; then posted
// tasks, then timers. Timers are lazy: arming later only moves the deadline, and a timer that comes up early is
// filed again.
#include "http/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/assert.h"

namespace capstan::http {
namespace {

constexpr int kReadyMax = 256;  // descriptors handled per turn
// Reads of so many events, then their writes: the kernel's code for each stays in the cache, and nobody waits for long.
constexpr int kEventsGathered = 16;

// While more than kBusyEventsPerMs descriptors become ready, the loop rests for kRestUs between its turns, as network cards
// gather interrupts: a turn then handles dozens of them, and neither side wakes the other for each. Where a rest gathers
// fewer than kGatheredMin (one busy connection, say), it only delays, and there is none for kNoRestUs.
constexpr std::int64_t kBusyEventsPerMs = 20;
constexpr std::int64_t kRestUs = 500;
constexpr int kGatheredMin = 8;
constexpr std::int64_t kNoRestUs = 100'000;

std::int64_t steady_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
std::int64_t steady_ms() { return steady_us() / 1'000; }

// Tells from the turns so far whether to rest before the next.
class Pace {
 public:
  void count(int events, std::int64_t now_us) {
    if (std::exchange(rested_, false) && events < kGatheredMin) {
      busy_ = false;
      no_rest_until_us_ = now_us + kNoRestUs;
    }
    events_ += events;
    const std::int64_t passed_us = now_us - since_us_;
    if (passed_us < 1'000) return;
    busy_ = events_ * 1'000 > kBusyEventsPerMs * passed_us && now_us >= no_rest_until_us_;
    events_ = 0;
    since_us_ = now_us;
  }
  void rest() {
    if (!busy_) return;
    std::this_thread::sleep_for(std::chrono::microseconds(kRestUs));
    rested_ = true;
  }

 private:
  std::int64_t events_ = 0;
  std::int64_t since_us_ = 0;
  std::int64_t no_rest_until_us_ = 0;
  bool busy_ = false;
  bool rested_ = false;
};

}  // namespace

EventLoop::EventLoop()
    : epoll_fd_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      now_ms_(steady_ms()),
      ready_(std::make_unique<epoll_event[]>(kReadyMax)) {
  CAPSTAN_ASSERT(epoll_fd_ >= 0 && wake_fd_ >= 0);
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  CAPSTAN_ASSERT(::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &event) == 0);
}

EventLoop::~EventLoop() {
  close();
  ::close(wake_fd_);
  ::close(epoll_fd_);
}

void EventLoop::run() {
  thread_ = std::this_thread::get_id();
  Pace pace;
  while (!stopping_) {
    ready_count_ = std::max(::epoll_wait(epoll_fd_, ready_.get(), kReadyMax, wait_ms()), 0);
    const std::int64_t now_us = steady_us();
    now_ms_ = now_us / 1'000;
    pace.count(ready_count_, now_us);
    const bool full = ready_count_ == kReadyMax;
    bool woken = false;
    for (ready_next_ = 0; ready_next_ < ready_count_;) {
      const epoll_event event = ready_[ready_next_++];
      if (event.data.ptr == nullptr) {
        woken = true;
        continue;
      }
      static_cast<Watcher*>(event.data.ptr)->on_ready(event.events);
      if (ready_next_ % kEventsGathered == 0) run_flushers();
    }
    ready_count_ = 0;
    run_flushers();
    if (woken) {
      std::uint64_t count;
      [[maybe_unused]] const auto ignored = ::read(wake_fd_, &count, sizeof count);
      woken_ = false;
    }
    run_posted();
    run_timers();
    if (!full) pace.rest();
  }
}

void EventLoop::stop() {
  stopping_ = true;
  post([] {});
}

void EventLoop::close() {
  thread_ = std::this_thread::get_id();
  run_posted();
  std::vector<std::function<void()>> rest;
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    rest.swap(posted_);
  }
  for (auto& task : rest) task();
  run_flushers();
}

void EventLoop::post(std::function<void()> task) {
  {
    const std::scoped_lock lock(mutex_);
    if (closed_) return;  // the task dies outside the lock, with the argument
    posted_.push_back(std::move(task));
  }
  if (!woken_.exchange(true)) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto ignored = ::write(wake_fd_, &one, sizeof one);
  }
}

void EventLoop::run_posted() {
  std::vector<std::function<void()>> tasks;
  {
    const std::scoped_lock lock(mutex_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) {
    task();
    task = nullptr;
  }
  run_flushers();
}

void EventLoop::run_flushers() {
  while (!flushers_.empty()) {
    flushing_.swap(flushers_);
    std::erase_if(flushing_, [](const auto& flusher) { return !flusher->begin_flush(); });
    crew_.send(flushing_);
    for (const auto& flusher : flushing_) flusher->end_flush();
    flushing_.clear();
  }
}

void EventLoop::run_timers() {
  while (!timers_.empty() && timers_.begin()->first <= now_ms_) {
    Timer& timer = *timers_.begin()->second;
    timer.unfile();
    if (timer.deadline_ms_ > now_ms_) {
      if (timer.deadline_ms_ != Timer::kNever) timer.file(timer.deadline_ms_);
      continue;
    }
    timer.deadline_ms_ = Timer::kNever;
    const auto callback = timer.callback_;  // it may destroy its timer
    callback();
    run_flushers();
  }
}

int EventLoop::wait_ms() const {
  if (timers_.empty()) return -1;
  return static_cast<int>(std::clamp<std::int64_t>(timers_.begin()->first - steady_ms(), 0, 3'600'000));
}

void EventLoop::watch(int fd, std::uint32_t events, Watcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  CAPSTAN_ASSERT(::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0);
}

void EventLoop::rewatch(int fd, std::uint32_t events, Watcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  CAPSTAN_ASSERT(::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) == 0);
}

void EventLoop::unwatch(int fd, Watcher& watcher) {
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  // What was fetched for it already is void.
  for (int i = ready_next_; i < ready_count_;) {
    if (ready_[i].data.ptr == &watcher) {
      ready_[i] = ready_[--ready_count_];
    } else {
      ++i;
    }
  }
}

void EventLoop::Timer::arm(std::int64_t after_ms) {
  deadline_ms_ = loop_.now_ms_ + after_ms;
  if (deadline_ms_ >= filed_ms_) return;
  unfile();
  file(deadline_ms_);
}

void EventLoop::Timer::file(std::int64_t at_ms) {
  filed_ms_ = at_ms;
  loop_.timers_.emplace(at_ms, this);
}

void EventLoop::Timer::unfile() {
  if (filed_ms_ != kNever) loop_.timers_.erase({filed_ms_, this});
  filed_ms_ = kNever;
}

}  // namespace capstan::http

// How: epoll_wait, then each ready descriptor's watcher, each followed by the writes that it gathered; then posted
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

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

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
  while (!stopping_) {
    ready_count_ = std::max(::epoll_wait(epoll_fd_, ready_.get(), kReadyMax, wait_ms()), 0);
    now_ms_ = steady_ms();
    bool woken = false;
    for (ready_next_ = 0; ready_next_ < ready_count_;) {
      const epoll_event event = ready_[ready_next_++];
      if (event.data.ptr == nullptr) {
        woken = true;
        continue;
      }
      static_cast<Watcher*>(event.data.ptr)->on_ready(event.events);
      run_flushers();
    }
    ready_count_ = 0;
    if (woken) {
      std::uint64_t count;
      [[maybe_unused]] const auto ignored = ::read(wake_fd_, &count, sizeof count);
      woken_ = false;
    }
    run_posted();
    run_timers();
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
    for (auto& flusher : flushing_) flusher->flush();
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

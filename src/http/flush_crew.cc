#include "http/flush_crew.h"

#include <algorithm>
#include <utility>

#include "base/cpus.h"

namespace capstan::http {
namespace {

constexpr int kHelpersMax = 3;
constexpr std::size_t kSharedMin = 24;  // fewer are sent soon enough, and waking costs

}  // namespace

FlushCrew::~FlushCrew() {
  {
    const std::scoped_lock lock(mutex_);
    leaving_ = true;
  }
  wanted_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void FlushCrew::send(std::span<const std::shared_ptr<Flusher>> flushers) {
  if (flushers.size() >= kSharedMin && !std::exchange(started_, true)) {
    for (int i = std::min(usable_cpus() - 1, kHelpersMax); i > 0; --i) helpers_.emplace_back([this] { help(); });
  }
  if (flushers.size() < kSharedMin || helpers_.empty()) {
    for (const auto& flusher : flushers) flusher->send();
    return;
  }
  std::unique_lock lock(mutex_);
  flushers_ = flushers;
  next_ = 0;
  lock.unlock();
  wanted_.notify_all();
  lock.lock();
  send_some(lock);
  done_.wait(lock, [this] { return under_way_ == 0; });
}

void FlushCrew::help() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [this] { return leaving_ || next_ < flushers_.size(); });
    if (leaving_) return;
    send_some(lock);
    if (under_way_ == 0) done_.notify_one();
  }
}

void FlushCrew::send_some(std::unique_lock<std::mutex>& lock) {
  while (next_ < flushers_.size()) {
    Flusher& flusher = *flushers_[next_++];
    ++under_way_;
    lock.unlock();
    flusher.send();
    lock.lock();
    --under_way_;
  }
}

}  // namespace capstan::http

// A loop is published under the mutex; helpers enter it under the mutex (inside_) and take chunk numbers from
// an atomic counter. The caller takes chunks as well, then closes the loop and waits only for those inside. Both sides spin
// before they sleep: waking up takes tens of microseconds, and a step of the model has some hundred loops.
#include "engine/kernels/thread_pool.h"

#include <algorithm>

#include "base/assert.h"
#include "base/cpus.h"

namespace capstan::engine {
namespace {

constexpr int kSpinRounds = 20'000;  // about 100 microseconds

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  const int count = threads > 0 ? threads : usable_cpus();
  helpers_.reserve(count - 1);
  for (int i = 1; i < count; ++i) helpers_.emplace_back([this] { help(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::run(int chunks, Invoke invoke, void* context) {
  bool anyone_sleeps = false;
  {
    std::lock_guard lock(mutex_);
    CAPSTAN_ASSERT(!open_);
    chunks_ = chunks;
    invoke_ = invoke;
    context_ = context;
    next_.store(0, std::memory_order_relaxed);
    open_ = true;
    loop_.fetch_add(1, std::memory_order_release);
    anyone_sleeps = sleeping_ > 0;
  }
  if (anyone_sleeps) wake_.notify_all();
  work();
  {
    std::lock_guard lock(mutex_);
    open_ = false;  // nobody enters any more
  }
  for (int i = 0; i < kSpinRounds; ++i) {
    if (inside_.load(std::memory_order_acquire) == 0) return;
    pause_briefly();
  }
  std::unique_lock lock(mutex_);
  left_.wait(lock, [this] { return inside_ == 0; });
}

void ThreadPool::work() {
  for (;;) {
    const int chunk = next_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= chunks_) return;
    invoke_(context_, chunk);
  }
}

void ThreadPool::help() {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stopping_) return;
    if (open_ && loop_.load(std::memory_order_relaxed) != seen) {
      seen = loop_.load(std::memory_order_relaxed);
      ++inside_;
      lock.unlock();
      work();
      lock.lock();
      if (--inside_ == 0) left_.notify_one();
      lock.unlock();
      for (int i = 0; i < kSpinRounds && loop_.load(std::memory_order_acquire) == seen; ++i) pause_briefly();
      lock.lock();
      continue;
    }
    ++sleeping_;
    wake_.wait(lock, [&] { return stopping_ || (open_ && loop_.load(std::memory_order_relaxed) != seen); });
    --sleeping_;
  }
}

}  // namespace capstan::engine

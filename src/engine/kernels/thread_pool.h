// ThreadPool: splits loops over a fixed set of threads; the caller works too.
//
//   ThreadPool pool(0);                                   // as many threads as this process may use
//   pool.parallel_for(chunks, [&](int chunk) { ... });    // returns when all chunks are done
//
// Chunks are handed out in order to whoever is free, so a chunk's result must not depend on who computes it.
// A helper that the system has not scheduled yet is not waited for: the caller does its share.
// Cost: a few microseconds when helpers sleep; callers keep loops below that to one chunk (they run inline).
// Helpers spin for some 100 microseconds after a loop before they sleep, the caller as long before it sleeps for the last one.
// Threads: one caller at a time; no nesting. The function must not throw.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace capstan::engine {

class ThreadPool {
 public:
  // `threads` counts the caller; 0: all hardware threads that this process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  template <class Function>
  void parallel_for(int chunks, Function&& function) {
    if (chunks <= 1 || helpers_.empty()) {
      for (int i = 0; i < chunks; ++i) function(i);
      return;
    }
    using Plain = std::remove_reference_t<Function>;
    run(
        chunks, [](void* context, int chunk) { (*static_cast<Plain*>(context))(chunk); },
        const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  using Invoke = void (*)(void* context, int chunk);
  void run(int chunks, Invoke invoke, void* context);
  void work();
  void help();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable left_;
  std::atomic<std::uint64_t> loop_{0};  // counts loops; written under mutex_
  bool open_ = false;                   // a loop accepts helpers; under mutex_
  bool stopping_ = false;
  std::atomic<int> inside_{0};  // helpers in the open loop; written under mutex_
  int sleeping_ = 0;
  int chunks_ = 0;
  Invoke invoke_ = nullptr;
  void* context_ = nullptr;
  std::atomic<int> next_{0};
  std::vector<std::thread> helpers_;
};

}  // namespace capstan::engine

// Load: submits and cancels in a thread of its own, and remembers exactly what was acknowledged.
//
// Three in four workloads are short gangs, one in four of those fails on its first attempt; the rest are task
// arrays and sleepers, which end only by a cancel. Each process appends "JOB ATTEMPT RANK start PID" to one
// file (O_APPEND). Threads: its own; the getters from any.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "base/prng.h"
#include "house.h"

namespace capstan::crash {

enum class Flavour { kGang, kTasks, kSleeper };

struct Submitted {
  Flavour flavour = Flavour::kGang;
  std::int64_t processes = 1;
  bool acknowledged = false;
  bool cancel_acknowledged = false;
};

class Load {
 public:
  Load(House& house, std::uint64_t seed);
  ~Load();

  // Lets the thread submit so many more.
  void allow(int submits);
  void stop();
  std::map<std::string, Submitted> submitted() const;
  // Cancels every sleeper that was not, until each is acknowledged. After stop().
  Result<void> cancel_sleepers();

 private:
  void run(std::stop_token stop);
  void submit();
  void cancel_one();
  bool cancel(const std::string& name);

  House& house_;
  Prng prng_;
  mutable std::mutex mutex_;
  std::map<std::string, Submitted> submitted_;
  int allowed_ = 0;
  int next_ = 0;
  std::jthread thread_;
};

}  // namespace capstan::crash

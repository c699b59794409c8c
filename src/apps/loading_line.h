// Shows how far loading is: on a terminal one line that is written over, else a log line every ten per cent.
//
//   LoadingLine line;
//   line.show({"packing the weights", done, total});   // "packing the weights: 43 %, 5.1 of 11.9 GiB, 310 MB/s, 22 s left"
//
// Threads: one caller.  Writes to standard error.
#pragma once

#include <chrono>
#include <string>

#include "engine/server/engine_server.h"

namespace capstan::engine {

class LoadingLine {
 public:
  LoadingLine();
  void show(const LoadProgress& now);

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_;
  std::string stage_;
  Clock::time_point began_, shown_at_;
  std::uint64_t tenths_ = 0;
};

// "43 %, 5.1 of 11.9 GiB, 310 MB/s, 22 s left" after so many seconds; total > 0.
std::string loading_text(std::uint64_t done, std::uint64_t total, double seconds);

}  // namespace capstan::engine

// Progress: the lines that a person watches, on standard output, from rank 0.
//
//   step   120/3000  loss 1.2345  accuracy  56.7%  lr 3.0e-03  norm 0.81  8.4k tokens/s  12m 03s left
//
// Threads: one owner.
#pragma once

#include <cstdint>
#include <string>

namespace capstan::trainer {

struct RunFacts {
  std::uint64_t parameters = 0;
  int ranks = 1;
  std::uint64_t step = 0;
  bool bf16 = false;
  bool resumed = false;
};

struct StepLine {
  std::uint64_t step = 0;
  double loss = 0;
  double accuracy = 0;
  double rate = 0;
  double norm = 0;
  std::uint64_t tokens = 0;
  double seconds = 0;
};

class Progress {
 public:
  explicit Progress(std::uint64_t steps) : steps_(steps) {}
  void start(const RunFacts& facts);
  // Keeps a moving average of the speed; prints a line if `print`.
  void step(const StepLine& line, bool print);
  void evaluation(std::uint64_t step, double loss, double accuracy, double exact);
  void note(const std::string& text);

 private:
  std::uint64_t steps_;
  std::uint64_t averaged_ = 0;  // steps in the averages; the first step, which warms caches, is not
  double seconds_per_step_ = 0;
  double tokens_per_second_ = 0;
};

// "45 s", "12m 03s", "3h 20m".
std::string duration_text(double seconds);

}  // namespace capstan::trainer

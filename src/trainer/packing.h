// Packs the endless stream of samples into steps, and a step into the shares of its ranks.
//
// Both are pure functions. A step takes samples in order while they fit into the budget of tokens (always at
// least one), so which samples a step sees does not depend on the number of ranks. Whole samples then go to
// ranks, the longest first to the rank with the fewest tokens; ties go to the lower sample and the lower
// rank.
//
//   StepPlan plan = plan_step(source, next_sample, {.tokens_max = 8192, .ranks = 2, .rank = 0});
//
// Threads: pure over a thread-safe source.  Cost: draws each sample of the step once.
#pragma once

#include <cstdint>
#include <vector>

#include "trainer/data.h"

namespace capstan::trainer {

struct StepShape {
  std::uint64_t tokens_max = 8192;  // of the whole gang; one sample longer than this makes a step of its own
  int ranks = 1;
  int rank = 0;
};

struct StepPlan {
  std::vector<Sample> samples;    // this rank's, by rising index; may be empty
  std::uint64_t next_sample = 0;  // the first sample of the next step
  std::uint64_t tokens = 0;       // of the whole gang
  std::uint64_t targets = 0;      // positions that count in the loss, of the whole gang
};

StepPlan plan_step(const DataSource& source, std::uint64_t first_sample, const StepShape& shape);

// The rank of each item, given the items' lengths: the rule above. Every value is in [0, ranks).
std::vector<int> balance(const std::vector<std::size_t>& lengths, int ranks);

// How many positions of the sample count in the loss: is_target[0] never does.
std::uint64_t target_count(const Sample& sample);

}  // namespace capstan::trainer

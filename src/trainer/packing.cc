// How it works: every rank draws the same samples and computes the same assignment, then keeps its own share.
// That costs a little repeated work and no communication, and gives every rank the gang's count of targets,
// by which the loss is normalised.
#include "trainer/packing.h"

#include <algorithm>
#include <numeric>

#include "base/assert.h"

namespace capstan::trainer {

std::uint64_t target_count(const Sample& sample) {
  std::uint64_t count = 0;
  for (std::size_t i = 1; i < sample.is_target.size(); ++i) count += sample.is_target[i] != 0;
  return count;
}

std::vector<int> balance(const std::vector<std::size_t>& lengths, int ranks) {
  CAPSTAN_ASSERT(ranks >= 1);
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::uint64_t> load(static_cast<std::size_t>(ranks), 0);
  std::vector<int> owner(lengths.size(), 0);
  for (const std::size_t item : order) {
    const auto lightest = std::min_element(load.begin(), load.end());  // the first of equals: the lowest rank
    *lightest += lengths[item];
    owner[item] = static_cast<int>(lightest - load.begin());
  }
  return owner;
}

StepPlan plan_step(const DataSource& source, std::uint64_t first_sample, const StepShape& shape) {
  CAPSTAN_ASSERT(shape.rank >= 0 && shape.rank < shape.ranks);
  StepPlan plan;
  plan.next_sample = first_sample;
  std::vector<Sample> samples;
  std::vector<std::size_t> lengths;
  for (;;) {
    Sample sample = source.sample(plan.next_sample);
    CAPSTAN_ASSERT(!sample.tokens.empty() && sample.tokens.size() == sample.is_target.size());
    if (!samples.empty() && plan.tokens + sample.tokens.size() > shape.tokens_max) break;
    plan.tokens += sample.tokens.size();
    plan.targets += target_count(sample);
    plan.next_sample += 1;
    lengths.push_back(sample.tokens.size());
    samples.push_back(std::move(sample));
    if (plan.tokens >= shape.tokens_max) break;
  }
  const std::vector<int> owner = balance(lengths, shape.ranks);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (owner[i] == shape.rank) plan.samples.push_back(std::move(samples[i]));
  }
  return plan;
}

}  // namespace capstan::trainer

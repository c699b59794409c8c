// Goal: while one tenant floods, another one's trickle gets its first token as if it were alone, but for one step
// of the batch. Method: the real queue before a simulated replica with continuous batching, in virtual time
// (microseconds); the same arrivals alone, under flood, and under flood without the queue (first come, first
// served), which must be much worse, or the test would show nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "base/prng.h"
#include "gateway/queue/fair_queue.h"

namespace capstan::gateway {
namespace {

constexpr int kPlaces = 16;
constexpr std::int64_t kPromptPerStep = 256;  // prompt tokens that one step may take in
constexpr std::int64_t kStepUs = 4'000, kDecodeUs = 50, kPromptUs = 20;
constexpr std::int64_t kRunUs = 120'000'000;
constexpr std::int64_t kFlood = 1, kTrickle = 2;

struct Request {
  std::uint64_t id = 0;
  std::int64_t tenant = 0, arrived_us = 0, prompt = 0, output = 0;
  std::int64_t prompt_done = 0, output_done = 0;
  std::int64_t tokens() const { return prompt + output; }
};

struct Outcome {
  std::vector<std::int64_t> ttft_us;  // of the trickle
  std::int64_t longest_step_us = 0;
  std::int64_t flood_tokens = 0;
  std::int64_t p95() {
    std::ranges::sort(ttft_us);
    return ttft_us[ttft_us.size() * 95 / 100];
  }
};

// One replica, as our engine's: each step every sequence decodes one token and prompts are taken in, first those of
// the tenant who was served least.
class Replica {
 public:
  void add(const Request& request) { batch_.push_back(request); }
  bool empty() const { return batch_.empty(); }
  std::size_t size() const { return batch_.size(); }
  std::int64_t step_us() const {
    std::int64_t decodes = 0, prompt = 0;
    for (const Request& r : batch_) {
      if (r.prompt_done == r.prompt) ++decodes;
      prompt += r.prompt - r.prompt_done;
    }
    return kStepUs + decodes * kDecodeUs + std::min(prompt, kPromptPerStep) * kPromptUs;
  }
  // The state after the step; `first` and `ended` get the requests whose first or last token came.
  void step(std::vector<Request>& first, std::vector<Request>& ended) {
    std::int64_t budget = kPromptPerStep;
    std::ranges::stable_sort(batch_, {}, [&](const Request& r) { return served_[r.tenant]; });
    for (Request& r : batch_) {
      if (r.prompt_done < r.prompt) {
        const std::int64_t take = std::min(budget, r.prompt - r.prompt_done);
        r.prompt_done += take;
        budget -= take;
        served_[r.tenant] += take;
        if (r.prompt_done < r.prompt) continue;
      }
      ++served_[r.tenant];
      if (++r.output_done == 1) first.push_back(r);
      if (r.output_done == r.output) ended.push_back(r);
    }
    std::erase_if(batch_, [](const Request& r) { return r.output_done == r.output; });
  }

 private:
  std::vector<Request> batch_;
  std::map<std::int64_t, std::int64_t> served_;
};

enum class Way { kAlone, kFair, kFirstCome };

Outcome run(Way way, std::uint64_t seed) {
  Prng prng(seed);
  FairQueue queue({.requests_max = kPlaces, .waiting_max = 1'000});
  Replica replica;
  std::map<std::uint64_t, Request> waiting;
  std::deque<Request> line;  // of kFirstCome
  Outcome outcome;
  std::uint64_t next_id = 1;
  std::int64_t now_us = 0, next_trickle_us = 1'000'000;
  const auto arrive = [&](Request request) {
    request.id = next_id++;
    if (way == Way::kFirstCome) {
      line.push_back(request);
      return true;
    }
    const auto entry = queue.enter({.id = request.id, .tenant = request.tenant, .tokens = request.tokens()});
    if (entry == FairQueue::Entry::kStarts) replica.add(request);
    if (entry == FairQueue::Entry::kWaits) waiting[request.id] = request;
    return entry != FairQueue::Entry::kFull;
  };
  Prng trickle(seed + 1000);  // the same arrivals whichever way
  int flooding = 0;
  while (now_us < kRunUs) {
    while (way != Way::kAlone && flooding < 400) {
      if (!arrive({0, kFlood, now_us, prng.between(200, 600), prng.between(50, 400)})) break;
      ++flooding;
    }
    while (next_trickle_us <= now_us) {
      arrive({0, kTrickle, next_trickle_us, trickle.between(50, 150), trickle.between(10, 30)});
      next_trickle_us += trickle.between(200'000, 600'000);
    }
    while (way == Way::kFirstCome && !line.empty() && replica.size() < kPlaces) {
      replica.add(line.front());
      line.pop_front();
    }
    if (replica.empty()) {
      now_us = next_trickle_us;
      continue;
    }
    const std::int64_t step_us = replica.step_us();
    outcome.longest_step_us = std::max(outcome.longest_step_us, step_us);
    now_us += step_us;
    // What arrives during a step waits for the next one; a trickle's place is known at its arrival.
    std::vector<Request> first, ended;
    replica.step(first, ended);
    for (const Request& r : first) {
      if (r.tenant == kTrickle) outcome.ttft_us.push_back(now_us - r.arrived_us);
    }
    for (const Request& r : ended) {
      if (r.tenant == kFlood) {
        --flooding;
        outcome.flood_tokens += r.tokens();
      }
      if (way == Way::kFirstCome) continue;
      for (const std::uint64_t id : queue.leave(r.id, r.tokens())) {
        replica.add(waiting.at(id));
        waiting.erase(id);
      }
    }
  }
  return outcome;
}

TEST(Fairness, ATrickleUnderFloodGetsItsFirstTokenWithinOneStepOfBeingAlone) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    Outcome alone = run(Way::kAlone, seed), fair = run(Way::kFair, seed), first_come = run(Way::kFirstCome, seed);
    std::printf("seed %d: p95 TTFT of the trickle: alone %.1f ms, under flood %.1f ms (bound %.1f ms), first come %.0f ms; "
                "longest step %.1f ms; flood %.0f tokens/s, first come %.0f\n",
                static_cast<int>(seed), static_cast<double>(alone.p95()) / 1e3, static_cast<double>(fair.p95()) / 1e3,
                static_cast<double>(alone.p95() + fair.longest_step_us) / 1e3,
                static_cast<double>(first_come.p95()) / 1e3, static_cast<double>(fair.longest_step_us) / 1e3,
                static_cast<double>(fair.flood_tokens) / (kRunUs / 1e6),
                static_cast<double>(first_come.flood_tokens) / (kRunUs / 1e6));
    ASSERT_GT(alone.ttft_us.size(), 250u);
    EXPECT_LE(fair.p95(), alone.p95() + fair.longest_step_us) << "seed " << seed;
    EXPECT_GT(first_come.p95(), 100 * alone.p95()) << "seed " << seed;
    EXPECT_GT(fair.flood_tokens, first_come.flood_tokens * 8 / 10) << "seed " << seed;
  }
}

}  // namespace
}  // namespace capstan::gateway

// How many replicas a service should have, from what its gateway sees: more while an objective is missed,
// fewer after calm, none after nobody came.
//
//   Autoscaler scaler({.min = 0, .max = 8, .ttft_ms = 2'000});
//   if (const auto next = scaler.step(now_ms, {.wanted = 2, .ready = 2, .requests = 40, .ttft_p95_ms =
//   3'100}))
//     scale("chat", next->replicas, next->why);
//
// Up: an objective missed by a factor f asks for f times the replicas, at most twice as many at once, and not
// again before all that were asked for are ready and have been seen for kSettleMs (what comes up late would
// be asked for twice). A request that finds no replica asks for one at once. Down: one at a time, when for
// `calm_ms` every p95 was at most half of its objective; if the objective is missed within `calm_ms` of that,
// the next calm must last twice as long, so that a load between two sizes does not make it flap. Nothing for
// `calm_ms`: to `min`, with min 0 to none. Pure: time and observations are arguments, integers only.  Cost:
// O(1).  Threads: one owner.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace capstan::routing {

inline constexpr std::int64_t kSettleMs = 10'000;
inline constexpr std::int64_t kCalmFactorMax = 8;
inline constexpr std::int64_t kSamplesMin = 3;  // fewer requests in the window say nothing about a p95

struct AutoscalePolicy {
  std::int64_t min = 1;
  std::int64_t max = 1;
  std::int64_t ttft_ms = 0;  // objectives of the p95; 0: none
  std::int64_t tpot_ms = 0;
  std::int64_t calm_ms = 300'000;
};

// Of the last seconds (the gateway's window).
struct ServiceLoad {
  std::int64_t wanted = 0;     // replicas asked for
  std::int64_t ready = 0;      // replicas that serve
  std::int64_t requests = 0;   // that came in the window
  std::int64_t samples = 0;    // first tokens of streams in the window: what the p95s are of
  std::int64_t under_way = 0;  // now, those that wait included
  std::int64_t waiting = 0;    // of those: with no replica to go to
  std::int64_t ttft_p95_ms = 0;
  std::int64_t tpot_p95_ms = 0;
};

struct ScaleStep {
  std::int64_t replicas = 0;
  std::string why;
};

class Autoscaler {
 public:
  explicit Autoscaler(const AutoscalePolicy& policy) : policy_(policy) {}
  void set_policy(const AutoscalePolicy& policy) { policy_ = policy; }

  // What to do now; nullopt: leave it.
  std::optional<ScaleStep> step(std::int64_t now_ms, const ServiceLoad& load);

 private:
  struct Pressure {
    std::int64_t milli = 0;  // the worse of observed / objective, in thousandths
    std::string why;
  };
  Pressure pressure(const ServiceLoad& load) const;
  std::optional<ScaleStep> up(std::int64_t now_ms, const ServiceLoad& load, const Pressure& pressure);
  std::optional<ScaleStep> down(std::int64_t now_ms, const ServiceLoad& load, const Pressure& pressure);

  AutoscalePolicy policy_;
  std::int64_t settled_since_ms_ = -1;  // since when all that is wanted is ready; -1: not now
  std::int64_t calm_since_ms_ = -1;
  std::int64_t quiet_since_ms_ = -1;  // since when nothing came
  std::int64_t shrank_ms_ = -1;
  std::int64_t calm_factor_ = 1;
};

}  // namespace capstan::routing

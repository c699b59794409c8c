// SimReplica: one engine with continuous batching, chunked prefill and a prefix cache, in steps of the
// serving model.
//
//   SimReplica replica(*served_model("gpt-oss-120b"), engine, 512);
//   replica.add(&served, now_s);
//   while (replica.next_s() <= until) replica.advance(done);      // `done`: first tokens and ends of that
//   step
//
// First come, first served. Room for a whole request (prompt and answer) is taken when it is admitted, so
// none is ever thrown out. Decoding costs O(1) a step, whatever the batch.  Threads: one owner.
#pragma once

#include <deque>
#include <limits>
#include <queue>
#include <vector>

#include "routing/block_cache.h"
#include "sim/serving/serving_model.h"
#include "sim/traces.h"

namespace capstan::sim {

// A request on its way; times in seconds of the simulation.
struct Served {
  const Request* request = nullptr;
  std::vector<std::uint64_t> chain;  // keys of its prompt's blocks; empty: it shares nothing
  double arrived_s = 0, admitted_s = -1, first_s = -1, ended_s = -1;
  std::int64_t hit_tokens = 0;
  std::size_t replica = 0;
  std::int64_t charged = 0;  // tokens that the router counts for it

  double ttft_s() const { return first_s - arrived_s; }
  double tpot_s() const {
    return request->output_tokens < 2 ? 0
                                      : (ended_s - first_s) / static_cast<double>(request->output_tokens - 1);
  }
};

class SimReplica {
 public:
  SimReplica(const ServedModel& model, const Engine& engine, std::int64_t block_tokens);

  // Whether it could ever hold the request.
  bool fits(const Request& request) const;
  void add(Served* served, double now_s);
  // When the step that runs ends; infinity: it is idle.
  double next_s() const { return next_s_; }
  // Ends the step: who got the first token and who the last, in order.
  void advance(std::vector<Served*>& first, std::vector<Served*>& ended);

  std::int64_t blocks() const { return static_cast<std::int64_t>(cache_.capacity()); }
  const routing::BlockCache& cache() const { return cache_; }
  double busy_s() const { return busy_s_; }
  std::int64_t steps() const { return steps_; }
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  std::int64_t running() const { return static_cast<std::int64_t>(running_.size() + prefill_.size()); }

 private:
  struct Running {
    std::int64_t last_step = 0;  // with this one it has all its tokens
    Served* served = nullptr;
    bool operator>(const Running& other) const { return last_step > other.last_step; }
  };
  struct Prefill {
    Served* served = nullptr;
    std::int64_t done = 0;   // tokens of the prompt, those cached included
    std::int64_t chunk = 0;  // of the step that runs
  };

  void begin_step(double now_s);
  void admit(double now_s);
  std::size_t answer_blocks(const Served& served) const;
  void leave(Served* served, double now_s, std::vector<Served*>& ended);

  const ServedModel& model_;
  Engine engine_;
  std::int64_t block_tokens_;
  routing::BlockCache cache_;
  std::deque<Served*> waiting_;
  std::deque<Prefill> prefill_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
  std::int64_t context_ = 0;  // of all that decode
  std::int64_t steps_ = 0;
  double next_s_ = std::numeric_limits<double>::infinity();
  double busy_s_ = 0;
};

}  // namespace capstan::sim

#include "sim/serving/replica.h"

#include <algorithm>

namespace capstan::sim {

SimReplica::SimReplica(const ServedModel& model, const Engine& engine, std::int64_t block_tokens)
    : model_(model),
      engine_(engine),
      block_tokens_(block_tokens),
      cache_(static_cast<std::size_t>(std::max<std::int64_t>(0, kv_tokens(model, engine)) / block_tokens)) {}

bool SimReplica::fits(const Request& request) const {
  return (request.input_tokens + request.output_tokens) / block_tokens_ + 2 <= blocks();
}

// A chain's blocks hold the prompt; what shares nothing takes its own.
std::size_t SimReplica::answer_blocks(const Served& served) const {
  const std::int64_t tokens =
      served.request->output_tokens + (served.chain.empty() ? served.request->input_tokens : 0);
  return static_cast<std::size_t>((tokens + block_tokens_ - 1) / block_tokens_);
}

void SimReplica::add(Served* served, double now_s) {
  waiting_.push_back(served);
  if (next_s_ == std::numeric_limits<double>::infinity()) begin_step(now_s);
}

void SimReplica::admit(double now_s) {
  while (!waiting_.empty() && running() < engine_.sequences_max) {
    Served* served = waiting_.front();
    const std::size_t hits = cache_.match(served->chain);
    if (!cache_.pin(served->chain)) return;
    if (!cache_.reserve(answer_blocks(*served))) return cache_.unpin(served->chain);
    waiting_.pop_front();
    served->admitted_s = now_s;
    // The last token of a prompt is always computed: its output is the first of the answer.
    served->hit_tokens =
        std::min(static_cast<std::int64_t>(hits) * block_tokens_, served->request->input_tokens - 1);
    prefill_.push_back({served, served->hit_tokens, 0});
  }
}

void SimReplica::begin_step(double now_s) {
  admit(now_s);
  StepLoad load{.decode_tokens = static_cast<std::int64_t>(running_.size()), .context_tokens = context_};
  std::int64_t budget = engine_.chunk_tokens;
  for (Prefill& one : prefill_) {
    one.chunk = std::min(budget, one.served->request->input_tokens - one.done);
    budget -= one.chunk;
    load.prefill_tokens += one.chunk;
    load.prefill_pairs +=
        static_cast<double>(one.chunk) * (static_cast<double>(one.done) + static_cast<double>(one.chunk) / 2);
    if (budget == 0) break;
  }
  const double takes = step_s(model_, engine_, load);
  next_s_ = takes > 0 ? now_s + takes : std::numeric_limits<double>::infinity();
  busy_s_ += takes;
}

void SimReplica::leave(Served* served, double now_s, std::vector<Served*>& ended) {
  served->ended_s = now_s;
  cache_.unpin(served->chain);
  cache_.release(answer_blocks(*served));
  ended.push_back(served);
}

void SimReplica::advance(std::vector<Served*>& first, std::vector<Served*>& ended) {
  const double now_s = next_s_;
  ++steps_;
  context_ += static_cast<std::int64_t>(running_.size());
  while (!running_.empty() && running_.top().last_step <= steps_) {
    Served* served = running_.top().served;
    running_.pop();
    context_ -= served->request->input_tokens + served->request->output_tokens - 1;
    leave(served, now_s, ended);
  }
  for (Prefill& one : prefill_) one.done += std::exchange(one.chunk, 0);
  while (!prefill_.empty() && prefill_.front().done >= prefill_.front().served->request->input_tokens) {
    Served* served = prefill_.front().served;
    prefill_.pop_front();
    served->first_s = now_s;
    first.push_back(served);
    if (served->request->output_tokens <= 1) {
      leave(served, now_s, ended);
    } else {
      running_.push({steps_ + served->request->output_tokens - 1, served});
      context_ += served->request->input_tokens;
    }
  }
  begin_step(now_s);
}

}  // namespace capstan::sim

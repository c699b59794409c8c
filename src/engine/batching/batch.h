// Batch: continuous batching of generation requests over one Model, one step at a time, without threads.
//
//   Batch batch(*model, {.sequences_max = 32});
//   CAPSTAN_TRY(RequestId id, batch.submit({.prompt = tokens, .sampling = {.temperature = 0}, .tokens_max =
//   64,
//                                           .stop_tokens = model->config().eos_token_ids,
//                                           .on_token = [&](const TokenEvent& e) { ... }}));
//   while (batch.step()) {}
//
// Every step decodes one token of each sequence that has its prompt behind it, and fills the rest of
// tokens_per_step_max with prompt chunks, oldest request first. A sequence that ends leaves at once and the
// next waiting request takes its place. A request's tokens do not depend on what else is in the batch.
// Threads: one owner (Generator runs one on its own thread).  Everything is bounded: see BatchOptions.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/batching/sampler.h"
#include "engine/model/model.h"

namespace capstan::engine {

using RequestId = std::uint64_t;

enum class FinishReason {
  kStop,       // a stop token was chosen (it is the event's token)
  kLength,     // tokens_max reached, or the context is full
  kCancelled,  // cancel() or shutdown
  kFailed,     // the model refused a step (see `error`)
};
std::string_view finish_reason_name(FinishReason reason);

// One event a generated token, the last with `finish` set. kCancelled and kFailed come without a token (-1).
struct TokenEvent {
  RequestId id = 0;
  TokenId token = -1;
  int index = 0;                       // how many tokens came before: 0 for the first
  float logprob = 0;                   // valid if the request asked for logprobs
  std::vector<TokenLogprob> top = {};  // top_logprobs many, best first
  std::optional<FinishReason> finish = {};
  std::string_view error = {};  // only for kFailed; lives during the call
};

struct GenerationRequest {
  std::vector<TokenId> prompt = {};  // at least one token
  Sampling sampling = {};
  int tokens_max = 0;  // of the answer; 0: until the context is full
  std::vector<TokenId> stop_tokens = {};
  bool logprobs = false;
  int top_logprobs = 0;  // 0..kTopLogprobsMax; needs logprobs
  // Null: none. Shared because a request can be copied; only the Batch calls it, and a copy needs one of its own.
  std::shared_ptr<TokenConstraint> constraint = {};
  // Called on the thread that steps; must return quickly and must not call back into the Batch or wait for
  // it.
  std::function<void(const TokenEvent&)> on_token = {};
};

struct BatchOptions {
  int sequences_max = 32;  // decoded together
  int queue_max = 256;     // requests that wait; one more is refused with kExhausted
  int tokens_per_step_max = KvCache::kChunkTokensMax;
  int context_max = 0;  // prompt + answer; 0: the model's positions_max
};

struct BatchStats {
  int running = 0;
  int waiting = 0;
  std::uint64_t kv_bytes = 0;
  std::uint64_t requests_finished = 0;
  std::uint64_t prompt_tokens = 0;  // prefilled so far
  std::uint64_t generated_tokens = 0;
};

class Batch {
 public:
  Batch(Model& model, BatchOptions options);
  ~Batch();

  // Failure: kInvalid (empty prompt, prompt longer than the context, token outside the vocabulary, sampling),
  // kExhausted (queue full).
  Result<RequestId> submit(GenerationRequest request);
  // For Generator: a request that passed check_request, under an id that the caller keeps unique.
  void enqueue(RequestId id, GenerationRequest request);
  // The request's last event is kCancelled, delivered before this returns. Unknown or ended ids: no effect.
  void cancel(RequestId id);
  void cancel_all();
  // One step of the model. False if nothing is left to do.
  bool step();
  BatchStats stats() const;

 private:
  struct Sequence;
  void admit();
  void collect(std::vector<SequenceStep>& steps, std::vector<Sequence*>& sampled);
  void deliver(Sequence& sequence, std::span<const float> logits);
  void emit(Sequence& sequence, TokenEvent event);
  void finish(Sequence& sequence, FinishReason reason, std::string_view error);
  void remove_finished();

  Model& model_;
  BatchOptions options_;
  RequestId next_id_ = 1;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<std::unique_ptr<KvCache>> free_caches_;
  Logits logits_;
  std::vector<SequenceStep> steps_;
  std::vector<Sequence*> stepped_;
  BatchStats stats_;
};

// What submit() checks, for callers that want to refuse early.
Result<void> check_request(const GenerationRequest& request, const ModelConfig& config, int context_max);

}  // namespace capstan::engine

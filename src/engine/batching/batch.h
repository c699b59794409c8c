// Batch: continuous batching of generation requests over one Model, one step at a time, without threads.
//
//   Batch batch(*model, {.sequences_max = 32});
//   CAPSTAN_TRY(RequestId id, batch.submit({.prompt = tokens, .sampling = {.temperature = 0}, .tokens_max =
//   64,
//                                           .stop_tokens = model->config().eos_token_ids,
//                                           .on_token = [&](const TokenEvent& e) { ... }}));
//   while (batch.step()) {}
//
// Every step decodes one token of each sequence that has its prompt behind it (or several, if the last ones guessed right, see
// prompt_lookup.h) and fills the rest of tokens_per_step_max with prompt chunks: higher priority first, then the tenant who was
// served least, then the oldest. A prompt starts behind what the prefix cache holds of it. When memory for keys and values runs
// short, the sequence of the lowest rank loses its own and is computed again later; the highest one always goes on.
//
// A request's tokens depend on prompt, seed and parameters alone: not on what else is in the batch, on what was cached,
// preempted or guessed. Threads: one owner (Generator runs one on its own thread).  Everything is bounded: see BatchOptions.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/batching/fair_share.h"
#include "engine/batching/kv_report.h"
#include "engine/batching/prefix_cache.h"
#include "engine/batching/sampler.h"
#include "engine/model/model.h"

namespace capstan::engine {

using RequestId = std::uint64_t;

inline constexpr int kScoredTokens = 64;  // a step, of prompts whose tokens' log-probabilities are wanted

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
  int cached_tokens = 0;               // of the prompt, in the first event: found in the prefix cache
  std::chrono::steady_clock::time_point began = {};  // in the first event: when the request left the queue
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
  std::string tenant = {};  // whose share it uses
  int priority = 0;         // higher ones go first, and take the place of lower ones
  bool logprobs = false;
  int top_logprobs = 0;  // 0..kTopLogprobsMax; needs logprobs
  // Null: none. Shared because a request can be copied; only the Batch calls it, and a copy needs one of its own.
  std::shared_ptr<TokenConstraint> constraint = {};
  // Called on the thread that steps; must return quickly and must not call back into the Batch or wait for
  // it.
  std::function<void(const TokenEvent&)> on_token = {};
  // Called for each of the prompt's tokens but the first, in order, before on_token: `index` is its position, logprob and top
  // are set. Such a prompt is computed in chunks of kScoredTokens, and never found in the prefix cache. Empty: not wanted.
  std::function<void(const TokenEvent&)> on_prompt_token = {};
};

struct BatchOptions {
  int sequences_max = 32;  // decoded together
  int queue_max = 256;     // requests that wait; one more is refused with kExhausted
  int tokens_per_step_max = KvCache::kChunkTokensMax;
  int context_max = 0;  // prompt + answer; 0: the model's positions_max. Never more than kv_bytes_max holds
  std::uint64_t kv_bytes_max = 0;  // of keys and values, the prefix cache included; 0: default_kv_bytes()
  bool prefix_cache = true;
  TokenId boundary_token = -1;  // begins a message: prompts tend to part there
  // Tokens guessed ahead for a sequence, while at most so many sequences decode: beyond, guesses cost more than they save.
  int speculation_tokens_max = 4;
  int speculation_sequences_max = 4;
  KvReport* report = nullptr;  // told of the prefix cache's blocks; outlives the Batch
};

struct BatchStats {
  int running = 0;
  int waiting = 0;
  std::uint64_t kv_bytes = 0;      // in use or cached
  std::uint64_t kv_bytes_max = 0;
  std::uint64_t kv_bytes_pinned = 0;  // in use by running sequences
  std::uint64_t requests_finished = 0;
  std::uint64_t prompt_tokens = 0;  // computed so far
  std::uint64_t generated_tokens = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t drafted_tokens = 0;  // guessed
  std::uint64_t accepted_tokens = 0;  // of them right
  PrefixCacheStats prefix = {};
};

// Half of what the machine has free beside the model's weights, at most twice what all sequences need at full context.
std::uint64_t default_kv_bytes(const Model& model, const BatchOptions& options);
// The longest sequence whose keys and values fit into `bytes`; 0: none does.
int kv_context_max(const ModelConfig& config, KvType type, std::uint64_t bytes);
// The options with what 0 stands for, and bounded by what the model and kv_bytes_max allow. Batch and Generator do it themselves.
BatchOptions resolve(const Model& model, BatchOptions options);

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
  // Lets go of all cached blocks that no sequence uses.
  void drop_cache();

 private:
  struct Sequence;
  using SequencePtr = std::unique_ptr<Sequence>;

  void admit();
  std::vector<SequencePtr>::iterator next_waiting();
  Sequence* lowest_below(int priority);
  bool fits(const Sequence& sequence);
  bool get_room(Sequence& sequence, int tokens);
  void preempt(Sequence& sequence);
  void collect();
  void collect_decoding(Sequence& sequence, int decoding);
  bool collect_prompt(Sequence& sequence, int room);
  bool comes_later(const Sequence& sequence) const;
  std::span<const float> score_prompt(Sequence& sequence, std::span<const float> rows);
  void step_over(Sequence& sequence, std::span<const float> rows);
  TokenId choose(Sequence& sequence, std::span<const float> logits);  // a row of logits_
  void emit(Sequence& sequence, TokenEvent event);
  void finish(Sequence& sequence, FinishReason reason, std::string_view error);
  void release(Sequence& sequence);
  void remove_finished();

  Model& model_;
  BatchOptions options_;
  RequestId next_id_ = 1;
  KvPool pool_;
  std::unique_ptr<PrefixCache> cache_;  // null: none
  FairShare share_;
  std::vector<SequencePtr> waiting_;
  std::vector<SequencePtr> running_;
  Logits logits_;
  std::vector<SequenceStep> steps_;
  std::vector<Sequence*> stepped_;
  int scored_rows_ = 0;  // of the step that is collected
  BatchStats stats_;
};

// What submit() checks, for callers that want to refuse early; `context_max` as resolve() gives it.
Result<void> check_request(const GenerationRequest& request, const ModelConfig& config, int context_max);

}  // namespace capstan::engine

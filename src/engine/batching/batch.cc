// A sequence is first a prompt that is prefilled in chunks, then a stream of one token a step. The order of
// running_ is the order of arrival, so prompts are served oldest first and no request starves.
#include "engine/batching/batch.h"

#include <algorithm>

#include "base/assert.h"

namespace capstan::engine {
namespace {

// A cache that grew beyond this is given back to the system with its sequence.
constexpr std::uint64_t kIdleCacheBytesMax = 64u << 20;
constexpr std::size_t kForcedMax = 16;  // tokens that one step of a sequence may deliver

}  // namespace

struct Batch::Sequence {
  RequestId id;
  GenerationRequest request;
  Sampler sampler;
  std::unique_ptr<KvCache> kv;
  std::size_t prefilled = 0;  // tokens of the prompt
  std::vector<TokenId> next;  // of the answer, delivered and not yet in the cache
  int generated = 0;
  bool finished = false;

  Sequence(RequestId the_id, GenerationRequest the_request)
      : id(the_id), request(std::move(the_request)), sampler(request.sampling) {}
  bool decoding() const { return prefilled == request.prompt.size(); }
};

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "failed";
}

Result<void> check_request(const GenerationRequest& request, const ModelConfig& config, int context_max) {
  const int context = context_max > 0 ? std::min(context_max, config.positions_max) : config.positions_max;
  if (request.prompt.empty()) return fail(Code::kInvalid, "the prompt is empty; it needs at least one token");
  if (request.prompt.size() >= static_cast<std::size_t>(context)) {
    return fail(Code::kInvalid, "the prompt has {} tokens; the context holds {}, the answer included",
                request.prompt.size(), context);
  }
  for (TokenId token : request.prompt) {
    if (token < 0 || token >= config.vocab) {
      return fail(Code::kInvalid, "token {} is outside the vocabulary of {}", token, config.vocab);
    }
  }
  if (request.tokens_max < 0)
    return fail(Code::kInvalid, "tokens_max must be >= 0, not {}", request.tokens_max);
  if (request.top_logprobs < 0 || request.top_logprobs > kTopLogprobsMax) {
    return fail(Code::kInvalid, "top_logprobs must be in 0..{}, not {}", kTopLogprobsMax,
                request.top_logprobs);
  }
  return check_sampling(request.sampling, config.vocab);
}

Batch::Batch(Model& model, BatchOptions options) : model_(model), options_(options) {
  CAPSTAN_ASSERT(options.sequences_max > 0 && options.queue_max > 0 && options.tokens_per_step_max > 0);
  const int positions = model.config().positions_max;
  options_.context_max = options.context_max > 0 ? std::min(options.context_max, positions) : positions;
}

Batch::~Batch() { cancel_all(); }

Result<RequestId> Batch::submit(GenerationRequest request) {
  CAPSTAN_CHECK(check_request(request, model_.config(), options_.context_max));
  if (waiting_.size() >= static_cast<std::size_t>(options_.queue_max)) {
    return fail(Code::kExhausted, "{} requests wait already; try again later", waiting_.size());
  }
  const RequestId id = next_id_++;
  enqueue(id, std::move(request));
  return id;
}

void Batch::enqueue(RequestId id, GenerationRequest request) {
  waiting_.push_back(std::make_unique<Sequence>(id, std::move(request)));
}

void Batch::cancel(RequestId id) {
  for (auto at = waiting_.begin(); at != waiting_.end(); ++at) {
    if ((*at)->id != id) continue;
    finish(**at, FinishReason::kCancelled, {});
    waiting_.erase(at);
    return;
  }
  for (auto& sequence : running_) {
    if (sequence->id == id && !sequence->finished) finish(*sequence, FinishReason::kCancelled, {});
  }
  remove_finished();
}

void Batch::cancel_all() {
  for (auto& sequence : waiting_) finish(*sequence, FinishReason::kCancelled, {});
  waiting_.clear();
  for (auto& sequence : running_) {
    if (!sequence->finished) finish(*sequence, FinishReason::kCancelled, {});
  }
  remove_finished();
}

void Batch::admit() {
  while (!waiting_.empty() && running_.size() < static_cast<std::size_t>(options_.sequences_max)) {
    auto sequence = std::move(waiting_.front());
    waiting_.pop_front();
    if (free_caches_.empty()) {
      sequence->kv = std::make_unique<KvCache>(model_.config());
    } else {
      sequence->kv = std::move(free_caches_.back());
      free_caches_.pop_back();
      sequence->kv->reset();
    }
    running_.push_back(std::move(sequence));
  }
}

void Batch::collect(std::vector<SequenceStep>& steps, std::vector<Sequence*>& sampled) {
  steps.clear();
  sampled.clear();
  for (auto& sequence : running_) {
    if (!sequence->decoding()) continue;
    steps.push_back({sequence->next, sequence->kv.get(), LogitsOf::kLast});
    sampled.push_back(sequence.get());
  }
  // Prompts always get some room, or full batches of decoding sequences would starve them.
  std::size_t room = std::max<int>(options_.tokens_per_step_max - static_cast<int>(steps.size()), 1);
  for (auto& sequence : running_) {
    if (sequence->decoding() || room == 0) continue;
    const std::span<const TokenId> prompt(sequence->request.prompt);
    const auto chunk =
        prompt.subspan(sequence->prefilled, std::min(room, prompt.size() - sequence->prefilled));
    room -= chunk.size();
    sequence->prefilled += chunk.size();
    stats_.prompt_tokens += chunk.size();
    steps.push_back({chunk, sequence->kv.get(), sequence->decoding() ? LogitsOf::kLast : LogitsOf::kNone});
    if (sequence->decoding()) sampled.push_back(sequence.get());
  }
}

bool Batch::step() {
  admit();
  if (running_.empty()) return false;
  collect(steps_, stepped_);
  if (auto result = model_.step(steps_, logits_); !result) {
    // Requests were checked, so this is rare; everyone in the step learns why.
    for (auto& sequence : running_) finish(*sequence, FinishReason::kFailed, result.error().message);
  } else {
    for (std::size_t i = 0; i < stepped_.size(); ++i) deliver(*stepped_[i], logits_.row(static_cast<int>(i)));
  }
  remove_finished();
  return !running_.empty() || !waiting_.empty();
}

// The next token, and those that the constraint then leaves no choice for: they need no logits of their own, so the next step
// computes them all at once. A request that wants log-probabilities gets its tokens one a step.
void Batch::deliver(Sequence& sequence, std::span<const float> logits) {
  const GenerationRequest& request = sequence.request;
  TokenConstraint* constraint = request.constraint.get();
  TokenId token = constraint == nullptr ? -1 : constraint->forced();
  if (token < 0) token = sequence.sampler.sample(logits, constraint);
  if (token < 0) {
    finish(sequence, FinishReason::kFailed, "the constraint of the request allows no token");
    return;
  }
  sequence.next.clear();
  TokenEvent event{.token = token};
  if (request.logprobs) {
    event.logprob = logprob_of(logits, token);
    if (request.top_logprobs > 0) event.top = top_logprobs(logits, request.top_logprobs);
  }
  emit(sequence, std::move(event));
  while (constraint != nullptr && !request.logprobs && !sequence.finished &&
         sequence.next.size() < kForcedMax && (token = constraint->forced()) >= 0) {
    emit(sequence, {.token = token});
  }
}

void Batch::emit(Sequence& sequence, TokenEvent event) {
  const GenerationRequest& request = sequence.request;
  CAPSTAN_ASSERT(event.token < model_.config().vocab);
  event.id = sequence.id;
  event.index = sequence.generated;
  sequence.sampler.accept(event.token);
  if (request.constraint) request.constraint->accept(event.token);
  sequence.next.push_back(event.token);
  ++sequence.generated;
  ++stats_.generated_tokens;
  const int context = static_cast<int>(request.prompt.size()) + sequence.generated;
  if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), event.token) !=
      request.stop_tokens.end()) {
    event.finish = FinishReason::kStop;
  } else if (sequence.generated == request.tokens_max || context >= options_.context_max) {
    event.finish = FinishReason::kLength;
  }
  if (event.finish) {
    sequence.finished = true;
    ++stats_.requests_finished;
  }
  if (request.on_token) request.on_token(event);
}

void Batch::finish(Sequence& sequence, FinishReason reason, std::string_view error) {
  sequence.finished = true;
  ++stats_.requests_finished;
  if (!sequence.request.on_token) return;
  sequence.request.on_token(
      {.id = sequence.id, .index = sequence.generated, .finish = reason, .error = error});
}

void Batch::remove_finished() {
  std::erase_if(running_, [this](std::unique_ptr<Sequence>& sequence) {
    if (!sequence->finished) return false;
    if (sequence->kv->bytes() <= kIdleCacheBytesMax) free_caches_.push_back(std::move(sequence->kv));
    return true;
  });
}

BatchStats Batch::stats() const {
  BatchStats stats = stats_;
  stats.running = static_cast<int>(running_.size());
  stats.waiting = static_cast<int>(waiting_.size());
  for (const auto& sequence : running_) stats.kv_bytes += sequence->kv->bytes();
  for (const auto& cache : free_caches_) stats.kv_bytes += cache->bytes();
  return stats;
}

}  // namespace capstan::engine

// A step: admit waiting sequences, collect what every running one feeds to the model, run it, then choose tokens, tell them, and
// give completed blocks to the prefix cache. Memory for a step's blocks is got while it is collected (get_room), so the model
// itself never runs out of it.
#include "engine/batching/batch.h"

#include <unistd.h>

#include <algorithm>

#include "base/assert.h"
#include "engine/batching/sequence.h"

namespace capstan::engine {
namespace {

constexpr int kBlock = KvPool::kBlockTokens;

int blocks_of(int tokens) { return (tokens + kBlock - 1) / kBlock; }

// Sliding blocks that a sequence holds in a step: the window's, the chunk's, and the two that both may cut.
int sliding_blocks_max(const ModelConfig& config) {
  return (config.sliding_window + KvCache::kChunkTokensMax) / kBlock + 2;
}

}  // namespace

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
  const int context = std::min(context_max, config.positions_max);
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

int kv_context_max(const ModelConfig& config, KvType type, std::uint64_t bytes) {
  const KvPool sizes(config, type);
  const std::uint64_t sliding = sizes.block_bytes(KvKind::kSliding) * static_cast<std::uint64_t>(sliding_blocks_max(config));
  const std::uint64_t full = std::max<std::uint64_t>(sizes.block_bytes(KvKind::kFull), 1);
  if (bytes < sliding + 2 * full) return 0;
  // One block is the copy of a shared one.
  return static_cast<int>(std::min<std::uint64_t>((bytes - sliding) / full - 1, (1 << 24) / kBlock)) * kBlock;
}

std::uint64_t default_kv_bytes(const Model& model, const BatchOptions& options) {
  const auto memory = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGE_SIZE));
  const std::uint64_t weights = std::max(model.weight_bytes(), model.packed_bytes());
  const KvPool sizes(model.config(), model.kv_type());
  const std::uint64_t full = sizes.block_bytes(KvKind::kFull), sliding = sizes.block_bytes(KvKind::kSliding);
  const int positions = model.config().positions_max;
  const int context = options.context_max > 0 ? std::min(options.context_max, positions) : positions;
  const std::uint64_t sequence = (static_cast<std::uint64_t>(blocks_of(context)) + 1) * full +
                                 static_cast<std::uint64_t>(sliding_blocks_max(model.config())) * sliding;
  const std::uint64_t all = 2 * sequence * static_cast<std::uint64_t>(options.sequences_max);
  return std::min(all, memory > weights ? (memory - weights) / 2 : memory / 16);
}

BatchOptions resolve(const Model& model, BatchOptions options) {
  CAPSTAN_ASSERT(options.sequences_max > 0 && options.queue_max > 0 && options.tokens_per_step_max > 0);
  const ModelConfig& config = model.config();
  if (options.kv_bytes_max == 0) options.kv_bytes_max = default_kv_bytes(model, options);
  options.tokens_per_step_max = std::min(options.tokens_per_step_max, KvCache::kChunkTokensMax);
  if (options.context_max == 0) options.context_max = config.positions_max;
  options.context_max = std::min({options.context_max, config.positions_max,
                                  kv_context_max(config, model.kv_type(), options.kv_bytes_max)});
  return options;
}

Batch::Batch(Model& model, BatchOptions options)
    : model_(model),
      options_(resolve(model, options)),
      pool_(model.config(), model.kv_type(), {.bytes_max = options_.kv_bytes_max}) {
  if (options_.prefix_cache) cache_ = std::make_unique<PrefixCache>(pool_, options_.report, options_.boundary_token);
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
  const bool screened = model_.screens() && !request.logprobs && !request.on_prompt_token &&
                        Sampler::takes_screened(request.sampling);
  auto sequence = std::make_unique<Sequence>(id, std::move(request), pool_, options_.speculation_tokens_max);
  sequence->screened = screened;
  sequence->account = share_.enter(sequence->request.tenant);
  waiting_.push_back(std::move(sequence));
}

void Batch::cancel(RequestId id) {
  for (auto* list : {&waiting_, &running_}) {
    for (SequencePtr& sequence : *list) {
      if (sequence->id == id && !sequence->finished) finish(*sequence, FinishReason::kCancelled, {});
    }
  }
  remove_finished();
}

void Batch::cancel_all() {
  for (auto* list : {&waiting_, &running_}) {
    for (SequencePtr& sequence : *list) {
      if (!sequence->finished) finish(*sequence, FinishReason::kCancelled, {});
    }
  }
  remove_finished();
}

void Batch::drop_cache() {
  if (cache_) cache_->clear();
}

// Highest priority, then the tenant that was served least (counting what is admitted and not yet done), then the oldest.
std::vector<Batch::SequencePtr>::iterator Batch::next_waiting() {
  for (auto& [name, account] : share_.accounts()) account.committed = 0;
  for (const SequencePtr& sequence : running_) sequence->account->committed += sequence->pending();
  const auto before = [](const SequencePtr& a, const SequencePtr& b) {
    if (a->request.priority != b->request.priority) return a->request.priority > b->request.priority;
    const std::int64_t served_a = a->account->served + a->account->committed;
    const std::int64_t served_b = b->account->served + b->account->committed;
    return served_a != served_b ? served_a < served_b : a->id < b->id;
  };
  return std::min_element(waiting_.begin(), waiting_.end(), before);
}

// Of the running sequences of a lower priority, the one that all others outrank; null if there is none.
Batch::Sequence* Batch::lowest_below(int priority) {
  Sequence* lowest = nullptr;
  for (const SequencePtr& sequence : running_) {
    if (sequence->request.priority >= priority) continue;
    if (lowest == nullptr || lowest->outranks(*sequence)) lowest = sequence.get();
  }
  return lowest;
}

// Whether the sequence could be computed to the end of what it has, and a block more, beside those that run.
bool Batch::fits(const Sequence& sequence) {
  if (running_.empty()) return true;
  const auto future = [](const Sequence& s) {
    return std::max(0, blocks_of(static_cast<int>(s.tokens.size()) + kBlock) - blocks_of(s.kv.length()));
  };
  int full = future(sequence);
  for (const SequencePtr& other : running_) full += future(*other);
  // Of a step's chunk in sliding blocks, and what every sequence's window can touch beside what it has.
  const int sliding = options_.tokens_per_step_max / kBlock + blocks_of(model_.config().sliding_window) + 2 +
                      static_cast<int>(running_.size());
  const std::uint64_t wanted = static_cast<std::uint64_t>(full) * pool_.block_bytes(KvKind::kFull) +
                               static_cast<std::uint64_t>(sliding) * pool_.block_bytes(KvKind::kSliding);
  if (pool_.bytes() + wanted <= pool_.bytes_max()) return true;
  return pool_.bytes() - (cache_ ? cache_->evictable_bytes() : 0) + wanted <= pool_.bytes_max();
}

void Batch::admit() {
  while (!waiting_.empty()) {
    const auto next = next_waiting();
    Sequence& sequence = **next;
    if (running_.size() >= static_cast<std::size_t>(options_.sequences_max)) {
      Sequence* lowest = lowest_below((*next)->request.priority);
      if (lowest == nullptr) return;
      SequencePtr admitted = std::move(*next);
      waiting_.erase(next);
      preempt(*lowest);
      running_.push_back(std::move(admitted));
    } else {
      if (!fits(**next)) return;
      running_.push_back(std::move(*next));
      waiting_.erase(next);
    }
    if (sequence.began == std::chrono::steady_clock::time_point{})
      sequence.began = std::chrono::steady_clock::now();
  }
}

// Back to the queue, without its keys and values (those of complete blocks stay cached while there is room).
void Batch::preempt(Sequence& sequence) {
  release(sequence);
  ++stats_.preemptions;
  const auto at = std::ranges::find(running_, &sequence, &SequencePtr::get);
  waiting_.push_back(std::move(*at));
  running_.erase(at);
}

// Gets the blocks for `tokens` more positions: from the pool, from the cache, from sequences of lower rank that are not in this
// step yet. False: there is no room now.
bool Batch::get_room(Sequence& sequence, int tokens) {
  for (;;) {
    const KvCache::Need need = sequence.kv.need(tokens);
    if (pool_.has_room(need.full, need.sliding) || (cache_ && cache_->make_room(need.full, need.sliding)))
      return sequence.kv.reserve(tokens);
    Sequence* victim = nullptr;
    for (const SequencePtr& other : running_) {
      if (other.get() == &sequence || !sequence.outranks(*other) || other->kv.bytes() == 0) continue;
      if (std::ranges::find(stepped_, other.get()) != stepped_.end()) continue;
      if (victim == nullptr || victim->outranks(*other)) victim = other.get();
    }
    if (victim == nullptr) return false;
    preempt(*victim);
  }
}

void Batch::collect() {
  steps_.clear();
  stepped_.clear();
  scored_rows_ = 0;
  std::vector<Sequence*> decoding, prompts;
  for (const SequencePtr& sequence : running_) (sequence->decoding() ? decoding : prompts).push_back(sequence.get());
  std::ranges::sort(decoding, [](const Sequence* a, const Sequence* b) { return a->outranks(*b); });
  std::ranges::sort(prompts, [](const Sequence* a, const Sequence* b) {
    if (a->request.priority != b->request.priority) return a->request.priority > b->request.priority;
    if (a->account != b->account && a->account->served != b->account->served)
      return a->account->served < b->account->served;
    return a->id < b->id;
  });
  const auto runs = [&](const Sequence* sequence) {  // it may have been preempted meanwhile
    return std::ranges::find(running_, sequence, &SequencePtr::get) != running_.end();
  };
  int room = options_.tokens_per_step_max;
  for (Sequence* sequence : decoding) {
    if (!runs(sequence)) continue;
    collect_decoding(*sequence, static_cast<int>(decoding.size()));
    room -= sequence->pending();
  }
  room = std::max(room, 1);  // prompts always get some, or full batches of decoding sequences would starve them
  for (Sequence* sequence : prompts) {
    if (room == 0) break;
    if (!runs(sequence) || !collect_prompt(*sequence, room)) continue;
    room -= static_cast<int>(steps_.back().tokens.size());
  }
}

void Batch::collect_decoding(Sequence& sequence, int decoding) {
  const int pending = sequence.pending();
  const std::span<const TokenId> tokens(sequence.tokens);
  sequence.draft.clear();
  sequence.rows = 1;
  if (pending == 1 && decoding <= options_.speculation_sequences_max) {
    const int left = std::min(options_.context_max - static_cast<int>(tokens.size()),
                              sequence.request.tokens_max > 0 ? sequence.request.tokens_max - sequence.generated() : INT32_MAX);
    const auto guess = sequence.lookup.propose(tokens);
    const auto draft = guess.first(std::min<std::size_t>(guess.size(), std::max(left - 1, 0)));
    sequence.draft.assign(draft.begin(), draft.end());
  }
  if (!sequence.draft.empty() && !get_room(sequence, pending + static_cast<int>(sequence.draft.size())))
    sequence.draft.clear();
  if (sequence.draft.empty() && !get_room(sequence, pending)) {
    preempt(sequence);
    return;
  }
  stepped_.push_back(&sequence);
  if (sequence.draft.empty()) {
    steps_.push_back({tokens.last(pending), &sequence.kv, LogitsOf::kLast, sequence.screened});
    return;
  }
  sequence.fed = {sequence.tokens.back()};
  sequence.fed.insert(sequence.fed.end(), sequence.draft.begin(), sequence.draft.end());
  sequence.rows = static_cast<int>(sequence.fed.size());
  stats_.drafted_tokens += sequence.draft.size();
  steps_.push_back({sequence.fed, &sequence.kv, LogitsOf::kAll, sequence.screened});
}

// Will a sequence of this step have computed what this one needs next? Then it is cheaper to wait for that.
bool Batch::comes_later(const Sequence& sequence) const {
  const std::size_t wanted = static_cast<std::size_t>(sequence.kv.length()) / kBlock * kBlock + kBlock;
  if (!cache_ || sequence.tokens.size() <= wanted) return false;
  return std::ranges::any_of(stepped_, [&](const Sequence* other) {
    return !other->decoding() && other->kv.length() / kBlock == sequence.kv.length() / kBlock &&
           other->tokens.size() >= wanted &&
           std::equal(sequence.tokens.begin(), sequence.tokens.begin() + static_cast<std::ptrdiff_t>(wanted),
                      other->tokens.begin());
  });
}

bool Batch::collect_prompt(Sequence& sequence, int room) {
  const int size = static_cast<int>(sequence.tokens.size());
  const bool scoring = sequence.scoring();
  if (scoring) room = std::min(room, kScoredTokens - scored_rows_);
  if (room == 0) return false;
  if (cache_ && !scoring) {
    const int before = sequence.kv.length();
    sequence.cursor = cache_->resume(sequence.tokens, size - 1, sequence.kv, sequence.cursor);
    if (sequence.generated() == 0) sequence.cached += sequence.kv.length() - before;
  }
  if (!scoring && comes_later(sequence)) return false;
  const int count = std::min(room, sequence.pending());
  if (!get_room(sequence, count)) return false;
  sequence.draft.clear();
  sequence.rows = scoring ? count : count == sequence.pending() ? 1 : 0;
  if (scoring) scored_rows_ += count;
  stepped_.push_back(&sequence);
  steps_.push_back({std::span(sequence.tokens).subspan(sequence.kv.length(), count), &sequence.kv,
                    scoring ? LogitsOf::kAll : sequence.rows > 0 ? LogitsOf::kLast : LogitsOf::kNone, sequence.screened});
  stats_.prompt_tokens += static_cast<std::uint64_t>(count);
  share_.charge(*sequence.account, count);
  return true;
}

bool Batch::step() {
  admit();
  if (running_.empty()) return false;
  collect();
  if (steps_.empty()) {
    // Cannot be: the highest sequence always gets room. Better one failed request than a batch that stands still.
    finish(*running_.front(), FinishReason::kFailed, "no memory is left for keys and values");
  } else if (auto result = model_.step(steps_, logits_); !result) {
    // Requests were checked, so this is rare; everyone in the step learns why.
    for (const SequencePtr& sequence : running_) {
      sequence->kv.reset();
      finish(*sequence, FinishReason::kFailed, result.error().message);
    }
  } else {
    const std::span<const float> all(logits_.values);
    std::size_t row = 0;
    for (Sequence* sequence : stepped_) {
      const std::size_t vocab = static_cast<std::size_t>(logits_.vocab), rows = static_cast<std::size_t>(sequence->rows);
      step_over(*sequence, all.subspan(row * vocab, rows * vocab));
      row += rows;
    }
  }
  remove_finished();
  return !running_.empty() || !waiting_.empty();
}

// Tells the log-probabilities of the prompt's tokens that these rows are for. Left is the row behind the prompt, or nothing.
std::span<const float> Batch::score_prompt(Sequence& sequence, std::span<const float> rows) {
  const std::size_t vocab = static_cast<std::size_t>(logits_.vocab);
  const int first = sequence.kv.length() - sequence.rows;  // the position of the first row's token
  for (int row = 0; row < sequence.rows && !sequence.finished; ++row) {
    const int position = first + row + 1;  // whose token the row foretells
    if (position >= sequence.prompt) return rows.subspan(static_cast<std::size_t>(row) * vocab, vocab);
    if (position <= sequence.scored) continue;  // told before the sequence lost its memory
    const auto logits = rows.subspan(static_cast<std::size_t>(row) * vocab, vocab);
    TokenEvent event{.id = sequence.id, .token = sequence.tokens[static_cast<std::size_t>(position)], .index = position};
    event.logprob = logprob_of(logits, event.token);
    if (sequence.request.top_logprobs > 0) event.top = top_logprobs(logits, sequence.request.top_logprobs);
    sequence.scored = position;
    sequence.request.on_prompt_token(event);
  }
  return {};
}

// The step has run: tokens are chosen row by row, as long as the guessed ones were right; then those that the constraint
// leaves no choice for, which need no logits. A request that wants log-probabilities gets its tokens one a row.
void Batch::step_over(Sequence& sequence, std::span<const float> rows) {
  const GenerationRequest& request = sequence.request;
  if (sequence.scoring()) rows = score_prompt(sequence, rows);
  const int held = sequence.kv.length() - static_cast<int>(sequence.draft.size());
  std::size_t right = 0;
  const std::size_t vocab = static_cast<std::size_t>(logits_.vocab);
  for (std::size_t row = 0; row * vocab < rows.size() && !sequence.finished; ++row) {
    const auto logits = rows.subspan(row * vocab, vocab);
    const TokenId token = choose(sequence, logits);
    if (token < 0) {
      finish(sequence, FinishReason::kFailed, "the constraint of the request allows no token");
      break;
    }
    TokenEvent event{.token = token};
    if (request.logprobs) {
      event.logprob = logprob_of(logits, token);
      if (request.top_logprobs > 0) event.top = top_logprobs(logits, request.top_logprobs);
    }
    emit(sequence, std::move(event));
    if (row >= sequence.draft.size() || token != sequence.draft[row]) break;
    ++right;
  }
  sequence.lookup.observe(sequence.draft.size(), right);
  stats_.accepted_tokens += right;
  if (sequence.kv.length() > 0) sequence.kv.truncate(held + static_cast<int>(right));
  for (std::size_t i = 0; !rows.empty() && !request.logprobs && i < Sequence::kForcedMax && !sequence.finished; ++i) {
    const TokenId token = request.constraint ? request.constraint->forced() : -1;
    if (token < 0) break;
    emit(sequence, {.token = token});
  }
  if (cache_ && !sequence.finished)
    sequence.cursor = cache_->publish(sequence.cursor, sequence.tokens, sequence.prompt, sequence.kv);
}

TokenId Batch::choose(Sequence& sequence, std::span<const float> logits) {
  TokenConstraint* constraint = sequence.request.constraint.get();
  const TokenId forced = constraint == nullptr ? -1 : constraint->forced();
  if (forced >= 0) return forced;
  if (!sequence.screened) return sequence.sampler.sample(logits, constraint);
  const std::ptrdiff_t row = (logits.data() - logits_.values.data()) / logits_.vocab;
  ScreenedLogits near = model_.screened(logits_, static_cast<int>(row));
  return sequence.sampler.sample(near, constraint);
}

void Batch::emit(Sequence& sequence, TokenEvent event) {
  const GenerationRequest& request = sequence.request;
  CAPSTAN_ASSERT(event.token < model_.config().vocab);
  event.id = sequence.id;
  event.index = sequence.generated();
  if (event.index == 0) {
    event.cached_tokens = sequence.cached;
    event.began = sequence.began;
    if (cache_) cache_->count_query(sequence.prompt, sequence.cached);
  }
  sequence.sampler.accept(event.token);
  if (request.constraint) request.constraint->accept(event.token);
  sequence.tokens.push_back(event.token);
  ++stats_.generated_tokens;
  share_.charge(*sequence.account, FairShare::kGeneratedWeight);
  if (std::ranges::find(request.stop_tokens, event.token) != request.stop_tokens.end()) {
    event.finish = FinishReason::kStop;
  } else if (sequence.generated() == request.tokens_max ||
             static_cast<int>(sequence.tokens.size()) >= options_.context_max) {
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
      {.id = sequence.id, .index = sequence.generated(), .finish = reason, .error = error});
}

// Gives the sequence's keys and values to the cache, or back.
void Batch::release(Sequence& sequence) {
  if (cache_ && sequence.kv.length() > 0) {
    sequence.cursor = cache_->publish(sequence.cursor, sequence.tokens, sequence.prompt, sequence.kv);
    cache_->finish(sequence.cursor, sequence.tokens, sequence.kv);
  }
  sequence.kv.reset();
  sequence.cursor = nullptr;
}

void Batch::remove_finished() {
  for (auto* list : {&waiting_, &running_}) {
    std::erase_if(*list, [this](SequencePtr& sequence) {
      if (!sequence->finished) return false;
      release(*sequence);
      share_.leave(*sequence->account);
      return true;
    });
  }
}

BatchStats Batch::stats() const {
  BatchStats stats = stats_;
  stats.running = static_cast<int>(running_.size());
  stats.waiting = static_cast<int>(waiting_.size());
  stats.kv_bytes = pool_.bytes();
  stats.kv_bytes_max = pool_.bytes_max();
  for (const SequencePtr& sequence : running_) stats.kv_bytes_pinned += sequence->kv.bytes();
  stats.kv_bytes_pinned = std::min(stats.kv_bytes_pinned, stats.kv_bytes);  // shared blocks count once at most
  if (cache_) stats.prefix = cache_->stats();
  return stats;
}

}  // namespace capstan::engine

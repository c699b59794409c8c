// Sequence: a request under way in a Batch. Private to this folder.
//
// Its tokens are the prompt and the answer so far; its cache holds a prefix of them, and what is not in there yet is pending: a
// prompt, or all of it again after a preemption, or the last token (with those that were forced after it).
#pragma once

#include <memory>
#include <vector>

#include "engine/batching/batch.h"
#include "engine/batching/fair_share.h"
#include "engine/batching/prompt_lookup.h"

namespace capstan::engine {

struct Batch::Sequence {
  // Forced tokens that one step may deliver; so many pending ones still count as decoding.
  static constexpr std::size_t kForcedMax = 15;

  RequestId id;
  GenerationRequest request;
  Sampler sampler;
  FairShare::Account* account = nullptr;
  std::vector<TokenId> tokens;
  int prompt = 0;     // of them
  int cached = 0;     // of the prompt, found in the cache
  int scored = 0;     // of the prompt, told to on_prompt_token; the first one has no log-probability
  bool screened = false;  // its tokens are chosen from near logits, and the few true ones that this takes
  bool finished = false;
  std::chrono::steady_clock::time_point began = {};  // when it left the queue for the first time
  KvCache kv;
  PrefixCache::Cursor cursor = nullptr;
  PromptLookup lookup;
  // Of the step under way.
  std::vector<TokenId> draft;
  std::vector<TokenId> fed;  // pending tokens and the draft, if there is one
  int rows = 0;              // of logits

  Sequence(RequestId the_id, GenerationRequest the_request, KvPool& pool, int speculation)
      : id(the_id),
        request(std::move(the_request)),
        sampler(request.sampling),
        tokens(std::move(request.prompt)),
        prompt(static_cast<int>(tokens.size())),
        kv(pool),
        lookup(speculation) {}

  int generated() const { return static_cast<int>(tokens.size()) - prompt; }
  int pending() const { return static_cast<int>(tokens.size()) - kv.length(); }
  bool scoring() const { return request.on_prompt_token && scored + 1 < prompt; }
  bool decoding() const { return generated() > 0 && pending() <= static_cast<int>(kForcedMax) + 1; }
  // Who keeps its memory when it runs short: higher priority, then who came first.
  bool outranks(const Sequence& other) const {
    return request.priority != other.request.priority ? request.priority > other.request.priority : id < other.id;
  }
};

}  // namespace capstan::engine

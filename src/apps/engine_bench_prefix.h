// `capstan-engine bench --prefix N`: what the prefix cache saves.
#pragma once

#include "base/json.h"
#include "engine/model/model.h"

namespace capstan::engine {

struct PrefixBenchOptions {
  int prefix_tokens = 2000;
  int message_tokens = 16;  // what a turn adds
  int answer_tokens = 32;   // of the first turn: half of it analysis, which the next turn's history has not
  int repetitions = 3;
};

// {"prefix", "first_ttft_s", "shared_ttft_s", "dropped_ttft_s", "shared_share", "dropped_share", "…_cached_tokens"}: medians of
// the time from submission to the first token, of a prompt that is new, of one that shares its prefix, and of a next turn without
// the answer's analysis; shares are of the first. Failure: as Batch::submit.
Result<Json> bench_prefix(Model& model, const PrefixBenchOptions& options);

}  // namespace capstan::engine

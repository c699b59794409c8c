// Every repetition has a batch and a prefix of its own, so its first request finds nothing.
#include "apps/engine_bench_prefix.h"

#include <algorithm>
#include <chrono>

#include "base/prng.h"
#include "engine/batching/batch.h"

namespace capstan::engine {
namespace {

using Clock = std::chrono::steady_clock;
using Tokens = std::vector<TokenId>;

struct Turn {
  double ttft_s = 0;
  int cached = 0;
  Tokens answer;
};

Result<Turn> run(Batch& batch, Tokens prompt, int answer_tokens) {
  Turn turn;
  const auto begin = Clock::now();
  CAPSTAN_CHECK(batch.submit({.prompt = std::move(prompt),
                              .sampling = {.temperature = 0},
                              .tokens_max = answer_tokens,
                              .on_token = [&](const TokenEvent& event) {
                                if (event.index == 0) {
                                  turn.ttft_s = std::chrono::duration<double>(Clock::now() - begin).count();
                                  turn.cached = event.cached_tokens;
                                }
                                turn.answer.push_back(event.token);
                              }}));
  while (batch.step()) {
  }
  return turn;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

Result<Json> bench_prefix(Model& model, const PrefixBenchOptions& options) {
  std::vector<double> first_s, shared_s, dropped_s, shared_share, dropped_share;
  Turn shared, dropped;
  Prng prng(1);
  const auto drawn = [&](int count) {
    Tokens tokens;
    for (int i = 0; i < count; ++i)
      tokens.push_back(static_cast<TokenId>(prng.below(static_cast<std::uint64_t>(model.config().vocab))));
    return tokens;
  };
  const auto with = [](Tokens a, const Tokens& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  for (int i = 0; i < options.repetitions; ++i) {
    Batch batch(model, {});
    const Tokens prefix = drawn(options.prefix_tokens);
    const Tokens prompt = with(prefix, drawn(options.message_tokens));
    CAPSTAN_TRY(const Turn first, run(batch, prompt, options.answer_tokens));
    CAPSTAN_TRY(shared, run(batch, with(prefix, drawn(options.message_tokens)), 1));
    // The next turn: the same prompt, the answer's end as its history, a new message.
    const Tokens final_text(first.answer.begin() + static_cast<std::ptrdiff_t>(first.answer.size() / 2), first.answer.end());
    CAPSTAN_TRY(dropped, run(batch, with(with(prompt, final_text), drawn(options.message_tokens)), 1));
    first_s.push_back(first.ttft_s);
    shared_s.push_back(shared.ttft_s);
    dropped_s.push_back(dropped.ttft_s);
    shared_share.push_back(shared.ttft_s / first.ttft_s);
    dropped_share.push_back(dropped.ttft_s / first.ttft_s);
  }
  return Json::object({{"prefix", options.prefix_tokens},
                       {"first_ttft_s", median(first_s)},
                       {"shared_ttft_s", median(shared_s)},
                       {"shared_share", median(shared_share)},
                       {"shared_cached_tokens", shared.cached},
                       {"dropped_ttft_s", median(dropped_s)},
                       {"dropped_share", median(dropped_share)},
                       {"dropped_cached_tokens", dropped.cached}});
}

}  // namespace capstan::engine

// How it works: prompts are drawn (speed does not depend on them), what is generated is chosen greedily, as when serving, every
// test is repeated on fresh caches, and the memory's read rate is measured in the same run, so that decoding can be told as a
// share of it.
#include "apps/engine_bench.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <thread>

#include "apps/engine_bench_prefix.h"
#include "base/build_id.h"
#include "base/json.h"
#include "base/prng.h"
#include "base/text.h"
#include "engine/batching/sampler.h"
#include "engine/kernels/peak.h"
#include "engine/model/model.h"

namespace capstan::engine {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchOptions {
  std::string model, arithmetic = "default", isa;
  std::string prompts = "512", generate = "64", batches = "1,8,32";
  int batch_prompt = 32, batch_generate = 8;
  int threads = 0, repetitions = 3, prefix = 0;
  bool no_warmup = false, json = false;
};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// Bytes a second that all threads together read from memory; the best of five passes over 512 MiB.
double read_rate(int threads) {
  const std::size_t words = (std::size_t{512} << 20) / 8;
  std::vector<std::uint64_t> memory(words, 1);
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    std::vector<std::thread> readers;
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
    const auto begin = Clock::now();
    for (int i = 0; i < threads; ++i) {
      readers.emplace_back([&, i] {
        const std::size_t share = words / static_cast<std::size_t>(threads),
                          first = share * static_cast<std::size_t>(i);
        std::uint64_t a = 0, b = 0, c = 0, d = 0;
        for (std::size_t at = first; at + 32 <= first + share; at += 32) {
          for (std::size_t j = 0; j < 32; j += 4) {
            a ^= memory[at + j];
            b ^= memory[at + j + 1];
            c ^= memory[at + j + 2];
            d ^= memory[at + j + 3];
          }
        }
        sums[static_cast<std::size_t>(i)] = a ^ b ^ c ^ d;
      });
    }
    for (auto& reader : readers) reader.join();
    const double taken = seconds_since(begin);
    volatile std::uint64_t sink = sums[0];
    (void)sink;
    best = std::max(best, static_cast<double>(words) * 8 / taken);
  }
  return best;
}

// Of one prompt token, without the head: only the last one meets it.
double multiplications_per_token(const ModelConfig& config) {
  const double hidden = config.hidden, q = config.q_dim(), kv = config.kv_dim();
  return config.layers * (hidden * (2 * q + 2 * kv) + 3.0 * config.experts_per_token * hidden * config.intermediate);
}

class Bench {
 public:
  Bench(Model& model, const BenchOptions& options) : model_(model), options_(options) {}

  Result<void> run() {
    if (!options_.no_warmup) CAPSTAN_CHECK(warm_up());
    for (const auto& text : split(options_.prompts, ',')) {
      if (const auto count = parse_int(text); count && *count > 0)
        CAPSTAN_CHECK(prompt(static_cast<int>(*count)));
    }
    for (const auto& text : split(options_.generate, ',')) {
      if (const auto count = parse_int(text); count && *count > 0)
        CAPSTAN_CHECK(generate(static_cast<int>(*count)));
    }
    for (const auto& text : split(options_.batches, ',')) {
      if (const auto count = parse_int(text); count && *count > 0)
        CAPSTAN_CHECK(batch(static_cast<int>(*count)));
    }
    return {};
  }
  Result<void> first_token() {
    KvCache kv(model_.config(), model_.kv_type());
    const TokenId one[] = {0};
    const SequenceStep step{.tokens = one, .kv = &kv, .screened = true};
    CAPSTAN_TRY([[maybe_unused]] const auto token, next_tokens(std::span(&step, 1)));
    return {};
  }
  Json& results() { return results_; }

 private:
  std::vector<TokenId> tokens(int count) {
    std::vector<TokenId> out;
    for (int i = 0; i < count; ++i)
      out.push_back(static_cast<TokenId>(prng_.below(static_cast<std::uint64_t>(model_.config().vocab))));
    return out;
  }

  // So many tokens choose every expert of every layer, which is read when it is first chosen.
  Result<void> warm_up() {
    KvCache kv(model_.config(), model_.kv_type());
    CAPSTAN_CHECK(model_.forward(tokens(kWarmUpTokens), kv, LogitsOf::kLast));
    return {};
  }

  void add(std::string name, int n_prompt, int n_gen, int sequences, double tokens,
           const std::vector<double>& times) {
    Json samples = Json::array();
    double sum = 0, squares = 0;
    for (const double taken : times) {
      samples.push_back(tokens / taken);
      sum += tokens / taken;
      squares += tokens / taken * tokens / taken;
    }
    const double count = static_cast<double>(times.size()), mean = sum / count;
    const double deviation = std::sqrt(std::max(0.0, squares / count - mean * mean));
    std::fprintf(stderr, "%-12s %8.2f +- %.2f tokens/s\n", name.c_str(), mean, deviation);
    results_.push_back(Json::object({{"test", name},
                                     {"n_prompt", n_prompt},
                                     {"n_gen", n_gen},
                                     {"n_sequences", sequences},
                                     {"avg_ts", mean},
                                     {"stddev_ts", deviation},
                                     {"samples_ts", std::move(samples)}}));
  }

  Result<void> prompt(int count) {
    std::vector<double> times;
    for (int i = 0; i < options_.repetitions; ++i) {
      KvCache kv(model_.config(), model_.kv_type());
      const auto input = tokens(count);
      const auto begin = Clock::now();
      CAPSTAN_CHECK(model_.forward(input, kv, LogitsOf::kLast));
      times.push_back(seconds_since(begin));
    }
    add(fmt::format("pp{}", count), count, 0, 1, count, times);
    return {};
  }

  // The next token of each step's sequence, as a greedy request gets it.
  Result<std::vector<TokenId>> next_tokens(std::span<const SequenceStep> steps) {
    CAPSTAN_CHECK(model_.step(steps, logits_));
    std::vector<TokenId> out;
    for (int row = 0; row < logits_.rows(); ++row) {
      if (model_.screens()) {
        ScreenedLogits near = model_.screened(logits_, row);
        out.push_back(greedy_.sample(near));
      } else {
        out.push_back(greedy_.sample(logits_.row(row)));
      }
    }
    return out;
  }

  Result<void> generate(int count) {
    std::vector<double> times;
    for (int i = 0; i < options_.repetitions; ++i) {
      KvCache kv(model_.config(), model_.kv_type());
      auto token = tokens(1);
      const SequenceStep step{.tokens = token, .kv = &kv, .screened = true};
      CAPSTAN_TRY(token, next_tokens(std::span(&step, 1)));
      const auto begin = Clock::now();
      for (int t = 0; t < count; ++t) {
        const SequenceStep next{.tokens = token, .kv = &kv, .screened = true};
        CAPSTAN_TRY(token, next_tokens(std::span(&next, 1)));
      }
      times.push_back(seconds_since(begin));
    }
    add(fmt::format("tg{}", count), 0, count, 1, count, times);
    return {};
  }

  // So many sequences decoded together, each behind a prompt of its own.
  Result<void> batch(int sequences) {
    std::vector<double> times;
    for (int i = 0; i < options_.repetitions; ++i) {
      std::vector<std::unique_ptr<KvCache>> caches;
      for (int s = 0; s < sequences; ++s) {
        caches.push_back(std::make_unique<KvCache>(model_.config(), model_.kv_type()));
        CAPSTAN_CHECK(model_.forward(tokens(options_.batch_prompt), *caches.back(), LogitsOf::kNone));
      }
      auto last = tokens(sequences);
      const auto begin = Clock::now();
      for (int t = 0; t < options_.batch_generate; ++t) {
        std::vector<SequenceStep> steps;
        for (std::size_t s = 0; s < caches.size(); ++s)
          steps.push_back({.tokens = std::span(last).subspan(s, 1), .kv = caches[s].get(), .screened = true});
        CAPSTAN_TRY(last, next_tokens(steps));
      }
      times.push_back(seconds_since(begin));
    }
    add(fmt::format("tg{}x{}", options_.batch_generate, sequences), options_.batch_prompt,
        options_.batch_generate, sequences, static_cast<double>(sequences) * options_.batch_generate, times);
    return {};
  }

  static constexpr int kWarmUpTokens = 128;
  Model& model_;
  const BenchOptions& options_;
  Prng prng_{1};
  Sampler greedy_{{.temperature = 0}};
  Logits logits_;
  Json results_ = Json::array();
};

Result<void> run(const BenchOptions& options) {
  CAPSTAN_CHECK(use_isa(options.isa));
  CAPSTAN_TRY(ModelOptions how, model_options(options.arithmetic, options.threads));
  how.progress = [shown = -1](std::uint64_t done, std::uint64_t total) mutable {
    const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
    if (percent != std::exchange(shown, percent)) std::fprintf(stderr, "\rpacking weights: %3d %%", percent);
    if (done == total) std::fprintf(stderr, "\n");
  };
  const auto begin = Clock::now();
  CAPSTAN_TRY(auto model, Model::load(options.model, how));
  const double load_s = seconds_since(begin);
  Bench bench(*model, options);
  CAPSTAN_CHECK(bench.first_token());
  const double first_s = seconds_since(begin);
  if (options.prefix > 0) {
    CAPSTAN_TRY(const Json prefix,
                bench_prefix(*model, {.prefix_tokens = options.prefix, .repetitions = options.repetitions}));
    std::printf("%s\n", prefix.dump().c_str());
    return {};
  }
  CAPSTAN_CHECK(bench.run());
  const std::int64_t peak_bytes = peak_rss_bytes();  // before the measurement below takes memory of its own
  const double rate = read_rate(model->threads());
  const std::uint64_t bytes = model->bytes_per_token();
  const double peak = peak_multiplications(model->threads());
  double share = 0, prompt_share = 0;
  for (const Json& test : bench.results().items()) {
    const double speed = test.find("avg_ts")->as_double();
    if (test.get_int("n_prompt") == 0) share = speed * static_cast<double>(bytes) / rate;
    if (test.get_int("n_gen") == 0 && peak > 0)
      prompt_share = speed * multiplications_per_token(model->config()) / peak;
  }
  Json out = Json::object(
      {{"build", build_id()},
       {"model", options.model},
       {"arithmetic", model->arithmetic()},
       {"isa", isa_name(current_isa())},
       {"threads", model->threads()},
       {"load_s", load_s},
       {"first_token_s", first_s},
       {"weight_bytes", model->packed_bytes() > 0 ? model->packed_bytes() : model->weight_bytes()},
       {"peak_rss_bytes", peak_bytes},
       {"read_bytes_per_s", rate},
       {"bytes_per_token", bytes},
       {"decode_share_of_read_rate", share},
       {"peak_multiplications_per_s", peak},
       {"prefill_share_of_peak", prompt_share},
       {"tests", std::move(bench.results())}});
  if (options.json) {
    std::printf("%s\n", out.dump().c_str());
  } else {
    std::printf(
        "%s, %s on %s, %d threads: load %.2f s, first token after %.2f s, %.2f GB of weights, peak memory "
        "%.2f GB; reads %.1f GB/s, "
        "decoding one sequence uses %.0f %% of that; %.0f G multiplications of 8 bits/s at most, the last prompt used %.0f %%\n",
        options.model.c_str(), model->arithmetic().c_str(), std::string(isa_name(current_isa())).c_str(),
        model->threads(), load_s, first_s, static_cast<double>(model->weight_bytes()) / 1e9,
        static_cast<double>(peak_bytes) / 1e9, rate / 1e9, share * 100, peak / 1e9, prompt_share * 100);
  }
  return {};
}

}  // namespace

void add_bench(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<BenchOptions>();  // shared with the callback, which outlives this function
  CLI::App* command = app.add_subcommand("bench", "Measure prefill, decoding, batches, memory and start");
  command->add_option("--model", options->model, "Directory with config.json and weights")->required();
  command->add_option("--arithmetic", options->arithmetic, "default, f32, int12, int10, int8 or int4")
      ->capture_default_str();
  command->add_option("--isa", options->isa, "auto, amx, avx512-vnni, avx2 or scalar");
  command->add_option("--pp", options->prompts, "Lengths of prompts, separated by commas; 0: none")
      ->capture_default_str();
  command->add_option("--tg", options->generate, "Tokens to generate alone, separated by commas; 0: none")
      ->capture_default_str();
  command->add_option("--batch", options->batches, "Sequences decoded together, separated by commas; 0: none")
      ->capture_default_str();
  command->add_option("--batch-prompt", options->batch_prompt, "Prompt of each of them")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command->add_option("--batch-generate", options->batch_generate, "Tokens each of them generates")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command->add_option("--prefix", options->prefix, "Only measure what the cache of a shared prefix of N tokens saves")
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--threads", options->threads, "Threads (default: all that this process may use)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--repetitions", options->repetitions, "Of each test")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  command->add_flag("--no-warmup", options->no_warmup, "Do not read all weights before the first test");
  command->add_flag("--json", options->json, "One JSON object as the last line");
  command->footer("Example:\n  capstan-engine bench --model models/abacus --json");
  command->callback([options, &exit_code] {
    const auto result = run(*options);
    if (!result) std::fprintf(stderr, "capstan-engine: %s\n", result.error().message.c_str());
    exit_code = result ? 0 : 1;
  });
}

}  // namespace capstan::engine

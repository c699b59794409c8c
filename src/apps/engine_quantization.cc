// The same tokens through the checkpoint in f32 and in the arithmetic asked for; the logits' distance, position by
// position. Tokens are drawn from the vocabulary (or taken from --tokens): a number that compares arithmetics on one
// checkpoint, not a score on text. f32 runs first and is let go, so that both are never in memory together.
#include "apps/engine_quantization.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/json.h"
#include "base/prng.h"
#include "base/text.h"
#include "engine/model/model.h"

namespace capstan::engine {
namespace {

struct ReportOptions {
  std::string model, tokens, arithmetic = "default";
  int count = 64;
  int threads = 0;
  bool json = false;
};

struct Loss {
  double rms = 0, largest = 0, agreement = 0, kl = 0, spread = 0;
};

double log_sum_exp(std::span<const float> row) {
  const double most = *std::ranges::max_element(row);
  double sum = 0;
  for (const float value : row) sum += std::exp(value - most);
  return most + std::log(sum);
}

Loss loss_of(const Logits& exact, const Logits& rounded) {
  Loss loss;
  for (int r = 0; r < exact.rows(); ++r) {
    const auto a = exact.row(r), b = rounded.row(r);
    const double a_sum = log_sum_exp(a), b_sum = log_sum_exp(b);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double difference = static_cast<double>(a[i]) - b[i];
      loss.rms += difference * difference;
      loss.largest = std::max(loss.largest, std::fabs(difference));
      loss.spread += static_cast<double>(a[i]) * a[i];
      loss.kl += std::exp(a[i] - a_sum) * ((a[i] - a_sum) - (b[i] - b_sum));
    }
    loss.agreement += std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin();
  }
  const double rows = exact.rows(), all = static_cast<double>(exact.values.size());
  return {std::sqrt(loss.rms / all), loss.largest, loss.agreement / rows, loss.kl / rows, std::sqrt(loss.spread / all)};
}

Result<std::vector<TokenId>> tokens_of(const ReportOptions& options, const ModelConfig& config) {
  std::vector<TokenId> tokens;
  if (options.tokens.empty()) {
    Prng prng(1);
    const int count = std::min(options.count, config.positions_max);
    for (int i = 0; i < count; ++i)
      tokens.push_back(static_cast<TokenId>(prng.below(static_cast<std::uint64_t>(config.vocab))));
    return tokens;
  }
  for (const std::string_view text : split(options.tokens, ',')) {
    const auto id = parse_int(trim(text));
    if (!id || *id < 0 || *id >= config.vocab)
      return fail(Code::kInvalid, "--tokens: '{}' is no id below {}; 1,2,3 would be right", text, config.vocab);
    tokens.push_back(static_cast<TokenId>(*id));
  }
  return tokens;
}

struct Pass {
  Logits logits;
  std::string arithmetic, experts;
};

Result<Pass> run(const ReportOptions& options, std::string_view arithmetic) {
  CAPSTAN_TRY(const ModelOptions how, model_options(arithmetic, options.threads));
  CAPSTAN_TRY(const auto model, Model::load(options.model, how));
  CAPSTAN_TRY(const auto tokens, tokens_of(options, model->config()));
  KvCache kv(model->config(), model->kv_type());
  CAPSTAN_TRY(Logits logits, model->forward(tokens, kv, LogitsOf::kAll));
  return Pass{std::move(logits), model->arithmetic(), model->expert_storage()};
}

Result<void> report(const ReportOptions& options) {
  CAPSTAN_TRY(const Pass exact, run(options, "f32"));
  CAPSTAN_TRY(const Pass rounded, run(options, options.arithmetic));
  const Loss loss = loss_of(exact.logits, rounded.logits);
  if (options.json) {
    const Json out = Json::object({{"model", options.model},
                                   {"arithmetic", rounded.arithmetic},
                                   {"experts", rounded.experts},
                                   {"positions", exact.logits.rows()},
                                   {"logits_rms", loss.spread},
                                   {"error_rms", loss.rms},
                                   {"error_max", loss.largest},
                                   {"argmax_agreement", loss.agreement},
                                   {"kl_mean", loss.kl}});
    std::printf("%s\n", out.dump().c_str());
    return {};
  }
  std::printf(
      "%s against f32 on %d positions of %s (experts %s):\n"
      "  logits' error: rms %.5f, largest %.5f (logits' rms %.3f)\n"
      "  the most likely token is the same at %.1f %% of positions; mean KL divergence %.2e nats\n"
      "The file's own rounding (MXFP4, Q8_0) is in both and not counted.\n",
      rounded.arithmetic.c_str(), exact.logits.rows(), options.model.c_str(), rounded.experts.c_str(), loss.rms, loss.largest,
      loss.spread, 100 * loss.agreement, loss.kl);
  return {};
}

}  // namespace

void add_quantization_report(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ReportOptions>();  // shared with the callback, which outlives this function
  CLI::App* command =
      app.add_subcommand("quantization-report", "Measure what an arithmetic loses against f32 on a checkpoint");
  command->add_option("--model", options->model, "Directory with config.json and weights, or a .gguf file")->required();
  command->add_option("--arithmetic", options->arithmetic, "default, int12, int8 or int4")
      ->check(CLI::IsMember({"default", "int12", "int10", "int8", "int4"}));
  command->add_option("--positions", options->count, "Random tokens to look at (default 64)")->check(CLI::Range(1, 4096));
  command->add_option("--tokens", options->tokens, "These ids instead: 1,2,3");
  command->add_option("--threads", options->threads, "Threads (default: all)")->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "One JSON object");
  command->callback([options, &exit_code] {
    const auto result = report(*options);
    if (!result) std::fprintf(stderr, "capstan-engine: %s\n", result.error().message.c_str());
    exit_code = result ? 0 : 1;
  });
}

}  // namespace capstan::engine

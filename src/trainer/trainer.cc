// How it works: every rank holds all parameters and both moments. It computes the gradients of its own
// documents, already divided by the gang's count of targets; their sum over the gang is the gradient of the
// mean loss. A second, small exchange carries the counters and the wish to stop. From there on every rank
// computes the same update from the same bits, so nothing needs to be sent back.
#include "trainer/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "trainer/batch.h"
#include "trainer/checkpoint.h"
#include "trainer/evaluate.h"
#include "trainer/export.h"
#include "trainer/metrics.h"
#include "trainer/out_lock.h"
#include "trainer/packing.h"
#include "trainer/progress.h"

namespace capstan::trainer {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What a rank contributes to a step, in the order of the exchange.
struct Counters {
  double loss_sum = 0;
  double correct = 0;
  double weighted_aux = 0;
  double stop = 0;
};

class Run {
 public:
  Run(const TrainConfig& config, const DataSource& source, Gang& gang, const RunOptions& options)
      : config_(config),
        source_(source),
        gang_(gang),
        options_(options),
        canonical_(to_json(config)),
        layout_(config.model),
        model_(config.model, config.precision),
        progress_(config.steps) {}

  Result<RunEnd> run() {
    CAPSTAN_CHECK(prepare());
    while (state_.step < config_.steps) {
      CAPSTAN_TRY(const bool stop, step());
      const bool last = state_.step == config_.steps;
      if (is_due(config_.evaluate_every_steps) || (last && config_.evaluate_every_steps > 0)) {
        CAPSTAN_CHECK(evaluate());
      }
      if (is_due(config_.checkpoint_every_steps) || last || stop) CAPSTAN_CHECK(checkpoint());
      if (stop && !last) return stopped();
    }
    CAPSTAN_CHECK(export_now(options_.out / "model"));
    CAPSTAN_CHECK(gang_.barrier());
    return RunEnd::kCompleted;
  }

 private:
  Result<RunEnd> stopped() const;
  Result<void> prepare();
  Result<void> resume_from(LoadedCheckpoint loaded);
  Result<bool> step();
  Result<Counters> compute(const StepPlan& plan);
  Result<void> update(double norm, double rate);
  void record(const StepPlan& plan, const Counters& total, double norm, double rate, double seconds);
  Result<void> evaluate();
  Result<void> checkpoint();
  Result<void> check_replicas();
  Result<void> export_now(const std::filesystem::path& directory);
  void warn_unless(const Result<void>& result);

  bool leads() const { return gang_.rank() == 0; }
  bool is_due(std::uint64_t every) const { return every > 0 && state_.step % every == 0; }

  const TrainConfig& config_;
  const DataSource& source_;
  Gang& gang_;
  const RunOptions& options_;
  const Json canonical_;
  const ParameterLayout layout_;
  Model model_;
  Progress progress_;
  TrainState state_;
  std::optional<std::uint64_t> saved_step_;  // of the last checkpoint that this process wrote
  std::vector<float> gradients_;
  std::vector<ParameterRange> decayed_;
  std::optional<Metrics> metrics_;        // rank 0 only
  std::optional<OutLock> lock_;           // rank 0 only
  std::unique_ptr<DataSource> held_out_;  // null if the source has none
};

Result<RunEnd> Run::stopped() const {
  if (saved_step_ == state_.step) return RunEnd::kStopped;
  return fail(Code::kIo, "stopped by a signal at step {}, but its checkpoint could not be written",
              state_.step);
}

Result<void> Run::prepare() {
  if (source_.vocabulary_size() > config_.model.vocab) {
    return fail(Code::kInvalid, "model.vocab = {} is smaller than the data's vocabulary of {}",
                config_.model.vocab, source_.vocabulary_size());
  }
  const Digest digest = sha256(canonical_.dump());
  CAPSTAN_CHECK(gang_.agree("configuration", digest));
  for (const ParameterInfo& info : layout_.all()) {
    if (info.decay) decayed_.push_back({info.offset, info.offset + info.count});
  }
  gradients_.resize(layout_.size());
  held_out_ = source_.held_out();
  CAPSTAN_CHECK(make_directories(options_.out));
  if (leads()) {
    CAPSTAN_TRY(lock_, OutLock::take(options_.out));
  }
  CAPSTAN_TRY(std::optional<LoadedCheckpoint> loaded,
              load_newest_checkpoint(options_.out / "checkpoints", gang_));
  if (loaded) {
    CAPSTAN_CHECK(resume_from(std::move(*loaded)));
  } else {
    state_.parameters.resize(layout_.size());
    initialise(layout_, config_.seed, state_.parameters);
    state_.optimizer.first.resize(layout_.size());
    state_.optimizer.second.resize(layout_.size());
  }
  if (leads()) {
    CAPSTAN_CHECK(write_file_atomic(options_.out / "config.yaml", to_yaml(config_)));
    CAPSTAN_TRY(metrics_, Metrics::open(options_.out, state_.step));
    prune_checkpoints(options_.out / "checkpoints", config_.checkpoint_keep);
    progress_.start({.parameters = layout_.size(),
                     .ranks = gang_.size(),
                     .step = state_.step,
                     .bf16 = model_.precision() == Precision::kBf16,
                     .resumed = state_.step > 0});
  }
  return gang_.barrier();
}

Result<void> Run::resume_from(LoadedCheckpoint loaded) {
  for (const std::string& key : differing_keys(loaded.manifest.config, canonical_)) {
    if (key.starts_with("model.")) {
      return fail(Code::kInvalid, "{} differs from the checkpoint in {}; use another --out, or the old value",
                  key, (options_.out / "checkpoints").string());
    }
    if (leads()) log_warn("the configuration changed since the checkpoint", "key={}", key);
  }
  if (loaded.state.parameters.size() != layout_.size()) {
    return fail(Code::kCorrupt, "the checkpoint has {} parameters, the model {}",
                loaded.state.parameters.size(), layout_.size());
  }
  state_ = std::move(loaded.state);
  return {};
}

Result<bool> Run::step() {
  const Clock::time_point start = Clock::now();
  const StepPlan plan =
      plan_step(source_, state_.next_sample,
                {.tokens_max = config_.batch_tokens, .ranks = gang_.size(), .rank = gang_.rank()});
  for (const Sample& sample : plan.samples) {
    if (sample.tokens.size() > static_cast<std::size_t>(config_.model.context_max)) {
      return fail(Code::kInvalid, "a sample of {} tokens is longer than model.context_max = {}",
                  sample.tokens.size(), config_.model.context_max);
    }
  }
  CAPSTAN_TRY(const Counters total, compute(plan));
  const double norm = gradient_norm(gradients_);
  const double rate = learning_rate(config_.schedule(), state_.step);
  CAPSTAN_CHECK(update(norm, rate));
  state_.step += 1;
  state_.next_sample = plan.next_sample;
  state_.tokens += plan.tokens;
  if (leads()) record(plan, total, norm, rate, seconds_since(start));
  return total.stop > 0;
}

// Leaves the gang's gradients in gradients_; returns the gang's counters.
Result<Counters> Run::compute(const StepPlan& plan) {
  const PackedBatch batch(plan.samples);
  std::uint64_t mine = 0;
  for (const Sample& sample : plan.samples) mine += sample.tokens.size();
  const double aux_weight = static_cast<double>(mine) / static_cast<double>(plan.tokens);
  const auto normaliser = static_cast<double>(std::max<std::uint64_t>(plan.targets, 1));
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  const StepResult result =
      model_.forward_backward(state_.parameters, batch.view(aux_weight), normaliser, gradients_);
  CAPSTAN_CHECK(gang_.sum(gradients_));
  const bool stop = options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed);
  const double counters[4] = {result.loss_sum, static_cast<double>(result.correct),
                              aux_weight * result.aux_loss, stop ? 1.0 : 0.0};
  CAPSTAN_TRY(const std::vector<double> all, gang_.gather(counters));
  Counters total;
  for (std::size_t rank = 0; rank < all.size(); rank += 4) {
    total.loss_sum += all[rank];
    total.correct += all[rank + 1];
    total.weighted_aux += all[rank + 2];
    total.stop += all[rank + 3];
  }
  return total;
}

Result<void> Run::update(double norm, double rate) {
  if (!std::isfinite(norm)) {
    state_.skipped += 1;
    state_.skipped_in_a_row += 1;
    if (leads()) {
      log_warn("step skipped: its gradients are not finite", "step={} in_a_row={}", state_.step + 1,
               state_.skipped_in_a_row);
    }
    if (state_.skipped_in_a_row >= kSkippedInARowMax) {
      return fail(Code::kExhausted,
                  "the gradients were not finite in {} steps in a row, up to step {}: lower "
                  "optimizer.learning_rate or look at the data; the last checkpoint is from before",
                  state_.skipped_in_a_row, state_.step + 1);
    }
    return {};
  }
  state_.skipped_in_a_row = 0;
  const double scale = config_.clip_norm > 0 && norm > config_.clip_norm ? config_.clip_norm / norm : 1.0;
  adamw_update(config_.optimizer, rate, scale, decayed_, gradients_, state_.parameters, state_.optimizer);
  return {};
}

void Run::record(const StepPlan& plan, const Counters& total, double norm, double rate, double seconds) {
  const auto targets = static_cast<double>(std::max<std::uint64_t>(plan.targets, 1));
  const StepLine line{.step = state_.step,
                      .loss = total.loss_sum / targets,
                      .accuracy = total.correct / targets,
                      .rate = rate,
                      .norm = norm,
                      .tokens = plan.tokens,
                      .seconds = seconds};
  warn_unless(metrics_->record(Json::object({{"step", state_.step},
                                             {"loss", line.loss},
                                             {"accuracy", line.accuracy},
                                             {"aux_loss", total.weighted_aux},
                                             {"lr", rate},
                                             {"grad_norm", norm},
                                             {"targets", plan.targets},
                                             {"tokens", state_.tokens},
                                             {"skipped", state_.skipped}})));
  warn_unless(metrics_->record_timing(
      Json::object({{"step", state_.step},
                    {"seconds", seconds},
                    {"tokens_per_second", static_cast<double>(plan.tokens) / seconds}})));
  progress_.step(line, state_.step % config_.log_every_steps == 0 || state_.step == config_.steps);
}

Result<void> Run::evaluate() {
  if (held_out_ == nullptr) return {};
  CAPSTAN_TRY(const Evaluation found,
              evaluate_model(model_, state_.parameters, *held_out_, config_.evaluate_samples, gang_));
  if (!leads()) return {};
  warn_unless(metrics_->record(Json::object({{"step", state_.step},
                                             {"eval_loss", found.loss},
                                             {"eval_accuracy", found.token_accuracy},
                                             {"eval_exact", found.exact}})));
  progress_.evaluation(state_.step, found.loss, found.token_accuracy, found.exact);
  return {};
}

// Every rank has computed the same updates, so all hold the same bits. If not, memory or a processor is
// faulty, or the ranks run on different kinds of processors; a checkpoint made of their slices would be
// worthless.
Result<void> Run::check_replicas() {
  if (gang_.size() == 1) return {};
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(state_.parameters.data());
  Sha256 hash;
  hash.update(std::span<const std::uint8_t>(bytes, state_.parameters.size() * sizeof(float)));
  return gang_.agree(fmt::format("model after step {}", state_.step), hash.finish());
}

Result<void> Run::checkpoint() {
  const Clock::time_point start = Clock::now();
  const std::filesystem::path folder = options_.out / "checkpoints";
  if (leads()) warn_unless(metrics_->sync());
  CAPSTAN_CHECK(check_replicas());
  const Result<void> saved = save_checkpoint(folder, state_, canonical_, gang_);
  if (!saved && saved.error().code == Code::kUnavailable) return saved;
  warn_unless(saved);
  if (saved) saved_step_ = state_.step;
  if (saved && leads()) {
    prune_checkpoints(folder, config_.checkpoint_keep);
    progress_.note(
        fmt::format("checkpoint {} written in {:.2f} s", checkpoint_name(state_.step), seconds_since(start)));
  }
  if (config_.export_at_checkpoints) return export_now(options_.out / "model");
  return {};
}

Result<void> Run::export_now(const std::filesystem::path& directory) {
  if (!leads()) return {};
  const Result<void> exported = export_model(directory, config_, state_.parameters, &source_);
  if (exported)
    progress_.note(fmt::format("model of step {} exported to {}", state_.step, directory.string()));
  if (state_.step == config_.steps) return exported;  // the run's result: its absence is a failure
  warn_unless(exported);
  return {};
}

void Run::warn_unless(const Result<void>& result) {
  if (result) return;
  log_warn("training goes on without writing this", "why={}", result.error().message);
}

}  // namespace

Result<RunEnd> run_training(const TrainConfig& config, const DataSource& source, Gang& gang,
                            const RunOptions& options) {
  Run run(config, source, gang, options);
  return run.run();
}

}  // namespace capstan::trainer

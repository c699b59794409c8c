// capstan-train: trains a gpt-oss-architecture model, as one rank of a gang or alone.
//
// How it works: the configuration and the torchrun environment say what to do; the kinds of data sources are
// registered here; everything else is in src/trainer. SIGTERM and SIGINT set a flag that the loop reads after
// each step. Exit codes: 0 trained to the end, 75 stopped by a signal after a checkpoint (EX_TEMPFAIL: run it
// again), 2 the command line or the configuration is wrong, 1 anything else, a lost peer included.
#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/log.h"
#include "trainer/abacus/source.h"
#include "trainer/checkpoint.h"
#include "trainer/config.h"
#include "trainer/export.h"
#include "trainer/gang.h"
#include "trainer/jsonl_source.h"
#include "trainer/trainer.h"

namespace capstan::trainer {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitStopped = 75;

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");

void request_stop(int) { stop_requested.store(true, std::memory_order_relaxed); }

struct Arguments {
  std::string config;
  std::string out;
  std::vector<std::string> overrides;
  std::string checkpoint;  // export only, as is dtype
  std::string dtype;
};

int complain(const Error& error) {
  std::fprintf(stderr, "capstan-train: %s\n", error.message.c_str());
  return error.code == Code::kInvalid ? kExitUsage : kExitFailed;
}

Result<std::unique_ptr<DataSource>> make_source(const DataConfig& config) {
  if (config.kind == "abacus") return abacus::AbacusSource::open(config);
  if (config.kind == "jsonl") return JsonlSource::open(config);
  if (config.kind == "abacus") return abacus::AbacusSource::open(config);
  return fail(Code::kUnsupported, "data.kind '{}' is not in this build", config.kind);
}

std::string default_out() {
  const char* job = std::getenv("CAPSTAN_JOB_DIR");
  return job != nullptr ? job : "out";
}

int train(const Arguments& arguments) {
  const Result<TrainConfig> config = load_config(arguments.config, arguments.overrides);
  if (!config) return complain(config.error());
  Result<GangConfig> environment = gang_from_environment();
  if (!environment) return complain(environment.error());
  environment->timeout_ms = config->gang_timeout_s * 1000;
  log_configure("train", LogLevel::kInfo);
  const Result<std::unique_ptr<DataSource>> source = make_source(config->data);
  if (!source) return complain(source.error());
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads our output may go away
  const Result<std::unique_ptr<Gang>> gang = join_gang(*environment);
  if (!gang) return complain(gang.error());
  // Until here a signal simply ends the process: there is nothing to save yet.
  std::signal(SIGTERM, request_stop);
  std::signal(SIGINT, request_stop);
  const std::string out = arguments.out.empty() ? default_out() : arguments.out;
  const Result<RunEnd> end = run_training(*config, **source, **gang, {.out = out, .stop = &stop_requested});
  if (!end) return complain(end.error());
  if (*end == RunEnd::kStopped) {
    if (environment->rank == 0)
      std::puts("stopped by a signal after a checkpoint; the same command continues");
    return kExitStopped;
  }
  if (environment->rank == 0) std::puts("training is complete");
  return 0;
}

int export_checkpoint(const Arguments& arguments) {
  const Result<LoadedCheckpoint> loaded = load_checkpoint(arguments.checkpoint);
  if (!loaded) return complain(loaded.error());
  Result<TrainConfig> config = config_from_json(loaded->manifest.config);
  if (!config) return complain(config.error());
  if (!arguments.dtype.empty()) {
    config->export_type = arguments.dtype == "mxfp4" ? ExportType::kMxfp4 : ExportType::kBf16;
  }
  const Result<std::unique_ptr<DataSource>> source = make_source(config->data);
  if (!source) {
    std::fprintf(stderr, "capstan-train: no tokenizer is written: %s\n", source.error().message.c_str());
  }
  const Result<void> exported =
      export_model(arguments.out, *config, loaded->state.parameters, source ? source->get() : nullptr);
  if (!exported) return complain(exported.error());
  std::printf("model of step %llu exported to %s\n", static_cast<unsigned long long>(loaded->state.step),
              arguments.out.c_str());
  return 0;
}

}  // namespace

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Trains a gpt-oss-architecture model: one rank of a gang (torchrun environment), or alone.\n"
      "Example: capstan-train --config examples/abacus/train.yaml --out /tmp/run --set steps=200");
  app.require_subcommand(0, 1);
  auto* config = app.add_option("-c,--config", arguments.config, "the run's YAML file");
  app.add_option("-o,--out", arguments.out, "folder of the run [CAPSTAN_JOB_DIR, else ./out]");
  app.add_option("--set", arguments.overrides,
                 "key=value over the file's, e.g. optimizer.learning_rate=1e-3");
  auto* exporting =
      app.add_subcommand("export", "writes a checkpoint as a Hugging-Face-style model directory");
  exporting->add_option("--checkpoint", arguments.checkpoint, "the step-N folder")->required();
  exporting->add_option("--out", arguments.out, "directory to write; replaced if it exists")->required();
  exporting->add_option("--dtype", arguments.dtype, "of the experts [as configured]")
      ->check(CLI::IsMember({"bf16", "mxfp4"}));
  try {
    app.parse(argc, argv);
    if (!exporting->parsed() && config->count() == 0) throw CLI::RequiredError("--config");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  return exporting->parsed() ? export_checkpoint(arguments) : train(arguments);
}

}  // namespace capstan::trainer

int main(int argc, char** argv) { return capstan::trainer::run(argc, argv); }

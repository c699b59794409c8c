#include "apps/sim_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "apps/sim_run.h"
#include "apps/sim_serve.h"
#include "journal/journal.h"
#include "sim/replay.h"

namespace capstan::apps {
namespace {

struct ReplayFile {
  std::string path;
  bool build_differs = false;
  std::string order;
};

void print(const sim::Difference& difference) {
  fmt::print("row {} ({} ms, build {}), {}:\n  journal: {}\n  now:     {}\n", difference.row,
             difference.time_ms, difference.build, difference.input,
             difference.journal.empty() ? "nothing" : difference.journal,
             difference.now.empty() ? "nothing" : difference.now);
}

int replay_file(const ReplayFile& options) {
  auto journal = journal::open_sqlite_journal(options.path, {.read_only = true});
  auto replay = journal
                    ? sim::replay_journal(**journal, {.all = options.build_differs, .order = options.order})
                    : Result<sim::Replay>(std::unexpected(journal.error()));
  if (!replay) {
    fmt::print(stderr, "capstan: {}: {}\n", options.path, replay.error().message);
    return 1;
  }
  const bool tries = options.build_differs || !options.order.empty();
  if (replay->identical()) {
    fmt::print("{} inputs, {} events: identical decisions, state {}\n", replay->rows, replay->events,
               replay->state_hash);
    return 0;
  }
  for (const sim::Difference& one : replay->kept) print(one);
  if (!tries) {
    fmt::print(
        "different after {} inputs; --build-differs lists all that would have been decided otherwise\n",
        replay->rows);
    return 1;
  }
  fmt::print("{} of {} inputs would have been decided otherwise:", replay->differences, replay->rows);
  for (const auto& [type, count] : replay->inputs) fmt::print(" {} {}", count, type);
  fmt::print("\n");
  return 0;
}

}  // namespace

void add_sim(CLI::App& app, int& exit_code) {
  CLI::App* sim = app.add_subcommand(
      "sim", "Rehearse a fleet, or decide a journal again, with the production controller");
  sim->require_subcommand(1);
  auto run = std::make_shared<SimRun>();  // shared by the options and the callback
  CLI::App* command = sim->add_subcommand("run", "Run a scenario");
  command->footer(
      "Example:\n  capstan sim run examples/scenarios/lab.yaml --compare fair-share,fifo --report lab.html");
  command->add_option("scenario", run->scenario, "a YAML file (docs/scenarios.md)")->required();
  command->add_option("--seed", run->seed, "instead of the scenario's");
  command->add_option("--seeds", run->seeds, "so many runs of each variant, with seeds one after another")
      ->check(CLI::Range(1, 10'000));
  command->add_option("--compare", run->compare, "these of its variants, separated by commas");
  command->add_option("--trace", run->trace, "this trace instead of the scenario's");
  command->add_option("--traces", run->traces, "a directory in which to look for traces");
  command->add_option("--json", run->json, "write the results to this file; - for stdout");
  command->add_option("--report", run->report, "write an HTML report to this file");
  command->add_flag("--quiet", run->quiet, "no progress");
  command->callback([run, &exit_code] { exit_code = sim_run(*run); });

  add_sim_serve(*sim, exit_code);

  auto file = std::make_shared<ReplayFile>();  // shared by the options and the callback
  CLI::App* replay = sim->add_subcommand("replay", "Decide the inputs of a journal again and compare");
  replay->footer("Example:\n  capstan sim replay ~/.local/state/capstan/journal.sqlite");
  replay->add_option("journal", file->path, "journal.sqlite of a data directory")->required();
  replay->add_flag("--build-differs", file->build_differs, "go on after a difference; list all");
  replay
      ->add_option("--order", file->order,
                   "with this order of the queue: what it would have decided otherwise")
      ->check(CLI::IsMember({"fair-share", "fifo", "sjf", "srtf", "srsf"}));
  replay->callback([file, &exit_code] { exit_code = replay_file(*file); });
}

}  // namespace capstan::apps

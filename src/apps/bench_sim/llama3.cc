// How it works: one gang of 2,048 hosts of eight H100 for 54 days, with the failures that Llama 3 counted by
// cause, on a cluster with 64 hosts to spare. The paper gives neither the stall of a checkpoint nor the time
// of a restart; 10 s and 5 minutes are assumed, and the interval that Young's formula then asks for: sqrt(2 x
// stall x time between interruptions). Variants: without spare hosts, with a checkpoint that stalls a tenth
// as long, with a slower restart. Interruptions are counted as the paper does: failures that hit the job,
// planned ones apart.
#include <cmath>

#include "apps/bench_sim/section.h"
#include "sim/failure_rates.h"
#include "sim/world.h"
#include "workload/fleet_yaml.h"

namespace capstan::apps::bench_sim {
namespace {

constexpr std::int64_t kDayMs = 86'400'000, kDays = 54, kHosts = 2'048;
constexpr double kUnplanned = 419, kPlanned = 47;

struct Choice {
  std::string_view name;
  std::int64_t spare_hosts = 64;
  std::int64_t stall_ms =
      10'000;  // of a checkpoint: written beside the work but for the copy out of the GPUs
  std::int64_t restart_ms =
      300'000;  // from placement to the first step: processes, collectives, the checkpoint's load
};

// Young (1974): the best interval between checkpoints.
std::int64_t young_ms(const Choice& choice) {
  const double mtbf_ms = kDays * kDayMs / (kUnplanned + kPlanned);
  return static_cast<std::int64_t>(std::sqrt(2.0 * static_cast<double>(choice.stall_ms) * mtbf_ms));
}

// First order, as Young and Daly: what is lost to stalls, to work done again, and to detection and restart.
double goodput_by_formula(const Choice& choice) {
  const double mtbf_ms = kDays * kDayMs / (kUnplanned + kPlanned),
               interval = static_cast<double>(young_ms(choice));
  const double stall = static_cast<double>(choice.stall_ms);
  // Two in five are noticed after a minute, software at once; planned stops keep their work.
  const double down =
      static_cast<double>(choice.restart_ms) + 60'000.0 * (kUnplanned - 61) / (kUnplanned + kPlanned);
  const double redo = interval / 2 * kUnplanned / (kUnplanned + kPlanned);
  const double per_cycle = mtbf_ms;
  return (per_cycle - down - redo) / per_cycle * interval / (interval + stall);
}

struct Outcome {
  double interruptions = 0, goodput = 0;
};

Result<Outcome> run(const Choice& choice, std::uint64_t seed) {
  auto fleet = workload::parse_fleet(fmt::format("fleet: llama3\nclasses: [{{name: h100, cpus: 192, memory: "
                                                 "2Ti, gpus: 8, gpu_model: h100}}]\nregions: [{{name: r, "
                                                 "clusters: [{{name: c, blocks: [{{name: b, hosts: [{{class: "
                                                 "h100, count: {}, name: h#}}]}}]}}]}}]\n",
                                                 kHosts + choice.spare_hosts),
                                     "llama3");
  if (!fleet) return fail(Code::kInvalid, "{}", fleet.error().front().text());
  class One : public sim::ArrivalSource {
   public:
    explicit One(sim::Arrival arrival) : arrival_(std::move(arrival)) {}
    std::optional<sim::Arrival> next() override { return std::exchange(arrival_, std::nullopt); }

   private:
    std::optional<sim::Arrival> arrival_;
  };
  sim::Arrival job;
  job.kind = "llama3";
  job.spec.name = "llama3";
  job.spec.command = {"train"};
  job.spec.ranks = kHosts;
  job.spec.resources.gpus = 8;
  job.spec.checkpoint.interval_ms = young_ms(choice);
  job.spec.restarts.budget = 1'000'000;
  job.spec.restarts.backoff_max_ms = 1'000;
  job.spec.grace_ms = 120'000;
  job.behaviour.work_ms = 2 * kDays * kDayMs;
  job.behaviour.checkpoint_stall_ms = choice.stall_ms;
  job.behaviour.start_ms = choice.restart_ms;
  sim::Setup setup;
  setup.name = "llama3-54d";
  setup.variant = choice.name;
  setup.seed = seed;
  setup.duration_ms = kDays * kDayMs;
  setup.sample_ms = kDayMs;
  setup.fleet = *std::move(fleet);
  setup.arrivals = std::make_unique<One>(std::move(job));
  CAPSTAN_TRY(const sim::RateSet rates, sim::rate_set("llama3"));
  setup.make_faults = [rates](const fleet::Topology& topology, const sim::Setup& of) {
    return sim::draw_faults(rates, topology, {}, of.seed);
  };
  sim::World world(std::move(setup));
  if (!world.refused().empty()) return fail(Code::kInvalid, "{}", world.refused());
  while (!world.done()) world.advance(1'000'000);
  const sim::Results results = world.results();
  Outcome out;
  const std::int64_t of_planned = [&] {
    for (const auto& table : results.tables) {
      for (const auto& row : table.rows) {
        if (row.name == "planned") return std::stoll(row.cells[1]);
      }
    }
    return 0LL;
  }();
  out.interruptions = static_cast<double>(results.totals.at("interruptions") - of_planned);
  out.goodput = static_cast<double>(results.totals.at("gpu_hours_useful")) / (kHosts * 8.0 * kDays * 24.0);
  return out;
}

}  // namespace

Result<Json> llama3(const Options& options) {
  const Choice published{"as published"};
  const Choice choices[] = {published,
                            {.name = "without spare hosts", .spare_hosts = 0},
                            {.name = "checkpoints ten times as fast", .stall_ms = 1'000},
                            {.name = "restart twice as slow", .restart_ms = 600'000}};
  Json out = Json::object();
  for (const Choice& choice : choices) {
    double interruptions = 0, goodput = 0, squares = 0;
    const int seeds = choice.name == published.name ? options.seeds : std::min(options.seeds, 3);
    for (int seed = 1; seed <= seeds; ++seed) {
      CAPSTAN_TRY(const Outcome one, run(choice, static_cast<std::uint64_t>(seed)));
      interruptions += one.interruptions / seeds;
      squares += one.interruptions * one.interruptions / seeds;
      goodput += one.goodput / seeds;
    }
    out[std::string(choice.name)] = Json::object(
        {{"seeds", seeds},
         {"unplanned_interruptions_mean", interruptions},
         {"unplanned_interruptions_sd", std::sqrt(std::max(0.0, squares - interruptions * interruptions))},
         {"checkpoint_interval_s", young_ms(choice) / 1000},
         {"effective_training_time", goodput},
         {"young_daly", goodput_by_formula(choice)},
         {"difference_points", 100 * (goodput - goodput_by_formula(choice))}});
    progress("llama3-54d: {}: {}", choice.name, out.find(choice.name)->dump());
  }
  return out;
}

}  // namespace capstan::apps::bench_sim

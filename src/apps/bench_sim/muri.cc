// How it works: the 400 jobs that Muri (Zhao et al., SIGCOMM'22) ran on 64 GPUs, as its trace gives them, on eight hosts of eight
// GPUs, under the two baselines that its repository publishes results of: average job completion time 249,140 s (SRTF) and
// 238,612 s (SRSF). Jobs are preemptible, keep what they have done when they give way (their rounds of six minutes did), and the
// scheduler is told how long they take, as there.
#include "apps/bench_sim/section.h"
#include "sim/traces.h"
#include "sim/world.h"
#include "workload/fleet_yaml.h"

namespace capstan::apps::bench_sim {
namespace {

constexpr std::string_view kFleet =
    "fleet: muri\nclasses: [{name: box, cpus: 64, memory: 512Gi, gpus: 8, gpu_model: v100}]\n"
    "regions: [{name: r, clusters: [{name: c, blocks: [{name: b, hosts: [{class: box, count: 8, name: h#}]}]}]}]\n";

Result<sim::Results> run(const sim::Trace& trace, std::string_view order) {
  auto fleet = workload::parse_fleet(kFleet, "muri");
  if (!fleet) return fail(Code::kInvalid, "{}", fleet.error().front().text());
  sim::TraceReplay replay;
  replay.pattern.kind = "muri";
  replay.pattern.spec.command = {"train"};
  replay.pattern.spec.checkpoint.interval_ms = 360'000;
  replay.pattern.spec.restarts.budget = 1'000'000;
  replay.pattern.estimate_percent = 100;
  replay.pattern.estimate_slack_ms = 600'000;
  sim::Setup setup;
  setup.name = "muri-64";
  setup.variant = order;
  setup.duration_ms = INT64_MAX / 4;
  setup.sample_ms = 86'400'000;
  setup.until_idle = true;
  setup.fleet = *std::move(fleet);
  setup.order = order;
  setup.starvation_ms = 0;
  setup.arrivals = sim::replay(std::make_shared<const sim::Trace>(trace), replay);
  sim::World world(std::move(setup));
  if (!world.refused().empty()) return fail(Code::kInvalid, "{}", world.refused());
  while (!world.done()) world.advance(100'000);
  return world.results();
}

}  // namespace

Result<Json> muri(const Options& options) {
  CAPSTAN_TRY(const sim::Trace trace, sim::read_trace(options.traces / "muri_cluster_trace.csv.zst", {}));
  Json out = Json::object({{"jobs", trace.jobs.size()}});
  constexpr std::pair<const char*, std::int64_t> kPublished[] = {{"srtf", 249'140}, {"srsf", 238'612}};
  for (const auto& [order, published] : kPublished) {
    CAPSTAN_TRY(const sim::Results results, run(trace, order));
    for (const auto& one : results.distributions) {
      if (one.name != "completion of muri") continue;
      out[order] = Json::object({{"average_jct_s", one.mean / 1000},
                                 {"published_s", published},
                                 {"ratio", static_cast<double>(one.mean) / 1000 / static_cast<double>(published)},
                                 {"p99_jct_s", one.p99 / 1000},
                                 {"makespan_s", results.duration_ms / 1000},
                                 {"jobs_done", one.count},
                                 {"stopped_for_others", results.totals.contains("stopped: preempted")
                                                            ? results.totals.at("stopped: preempted")
                                                            : 0}});
    }
  }
  return out;
}

}  // namespace capstan::apps::bench_sim

// How it works: a trace of jobs of virtual clusters (VCs), on hosts of eight GPUs. Each VC is a tenant that
// is promised as many hosts as its mean load over the trace needs, a tenth more, and never fewer than its
// largest job needs. The trace runs under FIFO, SJF and fair share on all hosts together; then each VC runs
// alone on its own hosts. HiveD's property (Zhao et al., OSDI'20): nobody waits longer for sharing. It is
// looked at for every VC by the mean wait of its jobs until they first run.
#include <algorithm>
#include <map>

#include "apps/bench_sim/section.h"
#include "sim/traces.h"
#include "sim/world.h"
#include "workload/fleet_yaml.h"

namespace capstan::apps::bench_sim {
namespace {

constexpr std::int64_t kHostGpus = 8, kDayMs = 86'400'000, kGraceMs = 60'000;
constexpr std::int64_t kHeadroomPercent = 110;  // over the mean load

// Jobs by tenant, for the books.
class ByTenant : public sim::ArrivalSource {
 public:
  explicit ByTenant(std::unique_ptr<sim::ArrivalSource> source) : source_(std::move(source)) {}
  std::optional<sim::Arrival> next() override {
    auto arrival = source_->next();
    if (arrival) arrival->kind = arrival->spec.tenant;
    return arrival;
  }

 private:
  std::unique_ptr<sim::ArrivalSource> source_;
};

std::map<std::string, std::int64_t> hosts_of(const sim::Trace& trace) {
  std::map<std::string, std::int64_t> gpu_s, hosts;
  std::int64_t span_s = 1;
  for (const auto& job : trace.jobs) {
    gpu_s[job.owner] += job.size.work_ms / 1000 * job.size.gpus;
    std::int64_t& least = hosts[job.owner];
    least = std::max({std::int64_t{1}, least, (job.size.gpus + kHostGpus - 1) / kHostGpus});
    span_s = std::max(span_s, job.submit_ms / 1000);
  }
  for (auto& [owner, count] : hosts)
    count = std::max(count, (gpu_s[owner] / span_s * kHeadroomPercent / 100 + kHostGpus - 1) / kHostGpus);
  return hosts;
}

Result<sim::Results> run(const sim::Trace& trace, std::string_view order,
                         const std::map<std::string, std::int64_t>& hosts) {
  std::int64_t all = 0;
  for (const auto& [owner, count] : hosts) all += count;
  auto fleet = workload::parse_fleet(
      fmt::format(
          "fleet: philly\nclasses: [{{name: box, cpus: 64, memory: 512Gi, gpus: 8, gpu_model: p100}}]\n"
          "regions: [{{name: r, clusters: [{{name: c, blocks: [{{name: b, hosts: [{{class: box, count: {}, "
          "name: h#}}]}}]}}]}}]\n",
          all),
      "philly");
  if (!fleet) return fail(Code::kInvalid, "{}", fleet.error().front().text());
  sim::TraceReplay replay;
  replay.pattern.kind = "philly";
  replay.pattern.spec.command = {"train"};
  replay.pattern.spec.checkpoint.interval_ms = 1'200'000;
  replay.pattern.spec.restarts.budget = 1'000'000;
  replay.pattern.spec.grace_ms = 30'000;
  replay.pattern.estimate_percent = 100;
  replay.owners_are_tenants = true;
  sim::Setup setup;
  setup.name = "philly";
  setup.variant = order;
  setup.duration_ms = INT64_MAX / 4;
  setup.sample_ms = kDayMs;
  setup.until_idle = true;
  setup.fleet = *std::move(fleet);
  setup.order = order;
  for (const auto& [owner, count] : hosts) {
    workload::Tenant tenant;
    tenant.name = sim::tenant_of(replay, owner);
    if (order == "fair-share") tenant.cells = {{.gpu_model = "p100", .trays = 1, .count = count}};
    setup.tenants.push_back(std::move(tenant));
  }
  setup.arrivals = std::make_unique<ByTenant>(sim::replay(std::make_shared<const sim::Trace>(trace), replay));
  sim::World world(std::move(setup));
  if (!world.refused().empty()) return fail(Code::kInvalid, "{}", world.refused());
  while (!world.done()) world.advance(100'000);
  return world.results();
}

std::map<std::string, sim::Distribution> waits(const sim::Results& results) {
  std::map<std::string, sim::Distribution> out;
  for (const auto& one : results.distributions) {
    if (one.name.starts_with("wait of ")) out[one.name.substr(8)] = one;
  }
  return out;
}

}  // namespace

Result<Json> philly(const Options& options) {
  const auto path =
      options.philly.empty() ? options.traces / "philly_jobs_until_oct2017.csv.zst" : options.philly;
  sim::TraceReading reading;
  if (options.scale < 1) reading.rows_max = static_cast<std::int64_t>(options.scale * 50'000);
  CAPSTAN_TRY(const sim::Trace trace, sim::read_trace(path, reading));
  const auto hosts = hosts_of(trace);
  Json out = Json::object({{"jobs", trace.jobs.size()}, {"virtual_clusters", hosts.size()}});
  std::map<std::string, sim::Distribution> shared;
  for (const char* order : {"fifo", "sjf", "fair-share"}) {
    CAPSTAN_TRY(const sim::Results results, run(trace, order, hosts));
    shared = waits(results);
    __int128 wait = 0, jct = 0;
    std::int64_t jobs = 0;
    for (const auto& one : results.distributions) {
      const bool is_wait = one.name.starts_with("wait of ");
      (is_wait ? wait : jct) += static_cast<__int128>(one.mean) * one.count;
      if (is_wait) jobs += one.count;
    }
    out[order] = Json::object(
        {{"jobs", jobs},
         {"mean_wait_s", static_cast<std::int64_t>(wait / std::max<std::int64_t>(1, jobs) / 1000)},
         {"mean_jct_s", static_cast<std::int64_t>(jct / std::max<std::int64_t>(1, jobs) / 1000)},
         {"makespan_days", results.duration_ms / kDayMs},
         {"inputs", results.inputs},
         {"hash", results.hash}});
    progress("philly: {} {}", order, out.find(order)->dump());
  }
  Json clusters = Json::object();
  std::int64_t hold = 0;
  for (const auto& [owner, count] : hosts) {
    sim::Trace own = trace;
    std::erase_if(own.jobs, [&](const sim::TraceJob& job) { return job.owner != owner; });
    CAPSTAN_TRY(const sim::Results alone, run(own, "fair-share", {{owner, count}}));
    const std::string tenant = waits(alone).begin()->first;
    const auto& together = shared[tenant];
    const auto& by_itself = waits(alone).begin()->second;
    const bool holds = together.mean <= by_itself.mean + kGraceMs;
    hold += holds;
    clusters[tenant] = Json::object({{"hosts", count},
                                     {"jobs", by_itself.count},
                                     {"mean_wait_alone_s", by_itself.mean / 1000},
                                     {"mean_wait_shared_s", together.mean / 1000},
                                     {"holds", holds}});
  }
  out["hived"] =
      Json::object({{"holds_for", hold}, {"of", hosts.size()}, {"virtual_clusters", std::move(clusters)}});
  return out;
}

}  // namespace capstan::apps::bench_sim

// How it works: jobs of about fifty shapes of 200 tenants fill the fleet, and then a queue of 100,000 of them
// waits. Again and again a random running job ends: the time from its hosts' reports to the last admission
// that follows, encoded. The queue is filled up after each.
#include "apps/bench/churn.h"
#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "apps/bench/world.h"

namespace capstan::apps::bench {
namespace {

constexpr std::int64_t kWaiting = 100'000;
constexpr std::int64_t kTenants = 200;
constexpr std::int64_t kReleases = 1'000;
constexpr std::int64_t kShapes = 50;
constexpr std::size_t kSpecsPerApply = 500;
constexpr std::int64_t kStepMs = 250;  // of simulated time between releases

class Backlog {
 public:
  explicit Backlog(World& world) : world_(world) {
    world_.set_watch([this](const Json& event) { on_event(event); });
    controller::SetTenants tenants;
    for (std::int64_t i = 0; i < kTenants; ++i) {
      workload::Tenant tenant;
      tenant.name = fmt::format("team-{:03}", i);
      tenant.weight = 1 + i % 5;
      if (i % 10 == 9) tenant.gpus_max = 2'000 + 10 * i;  // some are at their limit
      tenants.tenants.push_back(std::move(tenant));
    }
    world_.apply(std::move(tenants));
  }

  // Submits until so many wait.
  void fill(std::int64_t waiting) {
    while (waiting_ < waiting) {
      controller::Apply apply;
      const std::int64_t more = std::min<std::int64_t>(kSpecsPerApply, waiting - waiting_);
      for (std::int64_t i = 0; i < more; ++i) apply.specs.push_back(draw());
      world_.apply(std::move(apply));
      world_.settle();
    }
  }
  // A random running job ends. What its inputs took.
  double release() {
    const std::size_t which = prng_.below(running_.size());
    const std::int64_t job = running_[which];
    running_[which] = running_.back();
    running_.pop_back();
    return world_.end(job);
  }
  std::int64_t waiting() const { return waiting_; }
  std::int64_t starts() const { return starts_; }
  std::size_t running() const { return running_.size(); }

 private:
  void on_event(const Json& event) {
    const std::string& type = event.find("type")->as_string();
    if (type == "workload_submitted") ++waiting_;
    if (type == "attempt_began") {
      --waiting_;
      ++starts_;
      running_.push_back(event.find("job")->as_int());
    }
  }
  workload::Spec draw() {
    const auto shape = static_cast<std::int64_t>(prng_.below(kShapes));
    workload::Spec spec;
    spec.name = fmt::format("job-{}", number_++);
    spec.tenant = fmt::format("team-{:03}", prng_.below(kTenants));
    spec.priority = static_cast<std::int64_t>(prng_.below(3));
    spec.preemptible = false;
    spec.command = {"train"};
    // 1, 2 or 4 GPUs of one tray; gangs of whole trays, small ones more often.
    const std::int64_t kind = shape % 10;
    spec.ranks = kind < 3 ? 1 : std::int64_t{1} << (kind - 2);
    spec.resources.gpus = kind < 2 ? 1 + kind : 4;
    spec.resources.milli_cpus = spec.resources.gpus * (20'000 + 2'000 * (shape / 10));
    spec.placement.segment = std::min<std::int64_t>(spec.ranks, 16);
    return spec;
  }

  World& world_;
  Prng prng_{7};
  std::int64_t number_ = 0, waiting_ = 0, starts_ = 0;
  std::vector<std::int64_t> running_;
};

}  // namespace

Result<Json> queue(const Options& options) {
  return in_own_process([&]() -> Result<Json> {
    CAPSTAN_TRY(fleet::FleetSpec spec, load_fleet(options, "half-million.yaml"));
    World world;
    world.apply(controller::ApplyFleet{std::move(spec), true});
    Backlog backlog(world);
    const std::int64_t waiting = options.scaled(kWaiting, 100);
    const Stopwatch fill_watch;
    backlog.fill(waiting);
    progress("queue: {} wait, {} run, filled in {:.1f} s", backlog.waiting(), backlog.running(),
             fill_watch.s());
    const double fill_s = fill_watch.s();
    const std::int64_t releases = options.scaled(kReleases, 20);
    Latencies times;
    const std::int64_t starts_before = backlog.starts();
    std::int64_t admitted = 0;
    for (std::int64_t i = 0; i < releases; ++i) {
      const std::int64_t before = backlog.starts();
      times.add(backlog.release());
      admitted += backlog.starts() - before;
      world.settle();
      backlog.fill(waiting);
      world.advance_to(world.now_ms() + kStepMs);
    }
    const auto& inventory = world.state().inventory;
    Json conditions = times.to_json();
    conditions["waiting"] = backlog.waiting();
    conditions["running"] = backlog.running();
    conditions["tenants"] = kTenants;
    conditions["shapes"] = kShapes;
    conditions["admitted_by_releases"] = admitted;
    conditions["admitted_in_all"] = backlog.starts() - starts_before;
    conditions["fill_s"] = rounded(fill_s);
    conditions["occupancy_of_all_gpus"] = rounded(static_cast<double>(inventory.total_used().gpus) /
                                                  static_cast<double>(inventory.total().gpus));
    progress("queue: {}", conditions.dump());
    return Json::object(
        {{"admission_p99_ms", rounded(times.quantile(0.99))},
         {"queue_decisions_per_s", rounded(1'000.0 * static_cast<double>(admitted) / times.sum())},
         {"fingerprint", world.fingerprint()},
         {"conditions", std::move(conditions)}});
  });
}

}  // namespace capstan::apps::bench

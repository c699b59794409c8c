// How it works: arrays of tasks of one core keep 95 % of the CPU hosts busy: each may run so many at once and
// has more. Host after host reports: the tasks that began since its last report have started, its oldest ones
// have ended; the controller starts as many elsewhere or there. In memory the events are encoded and dropped.
// Durable means as the driver does it: a batch of inputs, then one transaction with an fsync, and effects
// only after it.
#include <map>

#include "apps/bench/host_tasks.h"
#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "apps/bench/world.h"
#include "base/build_id.h"
#include "controller/driver_load.h"
#include "controller/interval_set.h"
#include "journal/journal.h"

namespace capstan::apps::bench {
namespace {

using controller::IntervalSet;
using controller::Reports;

constexpr std::int64_t kArrays = 64;
constexpr std::int64_t kOccupancyPercent = 95;
constexpr std::int64_t kEndsPerReport = 16;  // of the 182 tasks of a host, picked at random
constexpr std::int64_t kMemoryTasks = 10'000'000;
constexpr std::int64_t kDurableTasks = 3'000'000;
constexpr std::int64_t kBatch = 1'000;  // inputs in one transaction, at most: controller::kBatchMax

workload::Spec array_of(std::int64_t number, std::int64_t running, std::int64_t count) {
  workload::Spec spec;
  spec.kind = workload::Kind::kTasks;
  spec.name = fmt::format("array-{}", number);
  spec.command = {"work"};
  spec.resources.milli_cpus = 1'000;
  spec.placement.required = fleet::Level::kNone;
  spec.count = count;
  spec.parallelism = running;
  return spec;
}

// The CPU hosts of one of the fleet's clusters: GPU hosts have cores as well, and tasks may spill onto them.
fleet::FleetSpec cpu_hosts_of(fleet::FleetSpec spec) {
  for (auto& region : spec.regions) {
    for (auto& cluster : region.clusters) {
      cluster.count = 1;
      std::erase_if(cluster.blocks, [](const fleet::BlockSpec& block) { return block.hosts.empty(); });
      for (auto& block : cluster.blocks) block.ultraservers.clear();
    }
  }
  return spec;
}

// A fleet that is 95 % busy, and what its hosts know.
struct Busy {
  World world;
  std::unique_ptr<HostTasks> hosts;
  std::vector<controller::HostEffect> effects;  // of the batch: they leave when it is durable
  std::int64_t running = 0;

  void apply(Command command) {
    world.apply(std::move(command));
    const auto& more = world.outcome().effects;
    effects.insert(effects.end(), more.begin(), more.end());
    world.discard_effects();
  }
  void let_out() {
    hosts->take(effects);
    effects.clear();
  }
};

Result<void> fill(const Options& options, std::int64_t tasks_to_come, Busy& busy) {
  CAPSTAN_TRY(fleet::FleetSpec spec, load_fleet(options, "half-million.yaml"));
  World& world = busy.world;
  busy.apply(controller::ApplyFleet{cpu_hosts_of(std::move(spec)), true});
  busy.hosts = std::make_unique<HostTasks>(world.state().inventory.hosts());
  const std::int64_t cores = world.state().inventory.total().milli_cpus / 1'000;
  const std::int64_t each = cores * kOccupancyPercent / 100 / kArrays;
  for (std::int64_t i = 0; i < kArrays; ++i) {
    busy.apply(controller::Apply{{array_of(i, each, 2 * each + 2 * tasks_to_come / kArrays)}, false});
    busy.let_out();
  }
  for (const auto& [id, workload] : world.state().workloads) busy.running += workload.tasks.running;
  return {};
}

Json conditions_of(Busy& busy, std::int64_t ended, std::int64_t reports, double s) {
  const auto& inventory = busy.world.state().inventory;
  return Json::object({{"tasks_started_and_ended", ended},
                       {"reports", reports},
                       {"ends_per_report", kEndsPerReport},
                       {"ends_are", "single tasks, picked at random"},
                       {"s", rounded(s)},
                       {"running_tasks", busy.running},
                       {"hosts", inventory.hosts()},
                       {"occupancy", rounded(static_cast<double>(inventory.total_used().milli_cpus) /
                                             static_cast<double>(inventory.total().milli_cpus))},
                       {"events", busy.world.events()},
                       {"fingerprint", busy.world.fingerprint()}});
}

// Hosts report in turn until so many tasks have ended. `commit` after each batch, then its effects leave.
template <class Commit>
Result<std::int64_t> turn(Busy& busy, std::int64_t tasks, std::int64_t& reports, Commit commit) {
  std::int64_t ended = 0;
  const std::size_t hosts = busy.world.state().inventory.hosts();
  for (std::size_t host = 0; ended < tasks;) {
    for (std::int64_t i = 0; i < kBatch && ended < tasks; ++i, host = (host + 1) % hosts) {
      Reports said = busy.hosts->report(busy.world.state(), host, kEndsPerReport, ended);
      if (said.tasks.empty()) continue;
      busy.apply(std::move(said));
      ++reports;
    }
    CAPSTAN_CHECK(commit());
    busy.let_out();
  }
  return ended;
}

Result<Json> in_memory(const Options& options) {
  const std::int64_t goal = options.scaled(kMemoryTasks, 1'000);
  Busy busy;
  CAPSTAN_CHECK(fill(options, goal, busy));
  progress("tasks: {} run on {} hosts", busy.running, busy.world.state().inventory.hosts());
  std::int64_t reports = 0;
  const Stopwatch watch;
  CAPSTAN_TRY(const std::int64_t ended, turn(busy, goal, reports, []() -> Result<void> { return {}; }));
  const double s = watch.s();
  Json out = conditions_of(busy, ended, reports, s);
  out["per_s"] = rounded(static_cast<double>(ended) / s);
  progress("tasks: in memory {}", out.dump());
  return out;
}

// Collects rows as the driver does, and writes a batch at a time.
class Recorder {
 public:
  explicit Recorder(journal::Journal& journal) : journal_(journal), seq_(journal.last_seq()) {}
  void add(const controller::Input& input, const controller::Outcome& outcome, std::string_view events) {
    event_last_ += static_cast<std::int64_t>(outcome.events.size());
    rows_.push_back(
        {++seq_, outcome.time_ms, build_id(), input.to_json().dump(), std::string(events), event_last_});
    bytes_ += controller::bytes_of(rows_.back());
  }
  bool full() const { return static_cast<std::int64_t>(rows_.size()) >= kBatch; }
  Result<void> commit() {
    if (rows_.empty()) return {};
    const Stopwatch watch;
    CAPSTAN_CHECK(journal_.append(rows_));
    commits_.add(watch.ms());
    rows_.clear();
    return {};
  }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t rows() const { return seq_; }
  const Latencies& commits() const { return commits_; }

 private:
  journal::Journal& journal_;
  std::vector<journal::Row> rows_;
  std::int64_t seq_ = 0, event_last_ = 0, bytes_ = 0;
  Latencies commits_;
};

std::int64_t add_ranges(const Json& event, IntervalSet& to) {
  std::int64_t count = 0;
  const auto ranges = controller::ranges_from_json(*event.find("ranges"));
  for (const auto& range : *ranges) {
    count += range.end - range.begin;
    to.insert(range.begin, range.end);
  }
  return count;
}

// Every task that began, started and ended, from the rows alone, each once; and the rows give the state that
// was.
Result<Json> prove(const std::string& path, std::int64_t ended, std::int64_t running,
                   const std::string& hash) {
  CAPSTAN_TRY(const auto journal, journal::open_sqlite_journal(path, {.read_only = true}));
  std::map<std::int64_t, IntervalSet> began, started, over;
  std::int64_t began_count = 0, over_count = 0, started_count = 0;
  controller::Controller again;
  const Stopwatch watch;
  CAPSTAN_CHECK(journal->read(1, [&](const journal::Row& row) -> Result<void> {
    CAPSTAN_TRY(const Json::Array events, controller::events_of(row));
    for (const Json& event : events) {
      CAPSTAN_CHECK(again.replay(row.time_ms, event));
      const std::string& type = event.find("type")->as_string();
      if (type == "tasks_began") began_count += add_ranges(event, began[event.find("job")->as_int()]);
      if (type == "tasks_succeeded") over_count += add_ranges(event, over[event.find("job")->as_int()]);
      if (type == "tasks_started") started_count += add_ranges(event, started[event.find("job")->as_int()]);
    }
    return {};
  }));
  const double s = watch.s();
  std::int64_t began_once = 0, over_once = 0;
  for (const auto& [job, set] : began) began_once += set.size();
  for (const auto& [job, set] : over) over_once += set.size();
  if (over_count != ended || over_once != ended)
    return fail(Code::kCorrupt, "{} tasks ended, the journal has {} ends of {} tasks", ended, over_count,
                over_once);
  std::int64_t never_started = 0;  // of those that ended
  for (auto& [job, set] : over) {
    IntervalSet& of_job = started[job];
    const std::int64_t before = of_job.size();
    for (const auto& range : set.ranges()) of_job.erase(range.begin, range.end);
    never_started += set.size() - (before - of_job.size());
  }
  if (began_count != ended + running || began_once != began_count || never_started != 0)
    return fail(Code::kCorrupt, "the journal has {} starts of {} tasks; {} ended, {} run", began_count,
                began_once, ended, running);
  if (again.state_hash() != hash) return fail(Code::kCorrupt, "the replay gives another state");
  return Json::object({{"starts", began_count},
                       {"reported_started", started_count},
                       {"ends", over_count},
                       {"rows", journal->last_seq()},
                       {"replay_s", rounded(s)},
                       {"state_hash", hash.substr(0, 16)}});
}

Result<Json> durable(const Options& options) {
  const std::int64_t goal = options.scaled(kDurableTasks, 1'000);
  const std::string path = (options.directory / "tasks.sqlite").string();
  CAPSTAN_TRY(auto journal, journal::open_sqlite_journal(path));
  Recorder recorder(*journal);
  Busy busy;
  busy.world.set_record([&](const controller::Input& input, const controller::Outcome& outcome) {
    recorder.add(input, outcome, busy.world.encoded());
  });
  CAPSTAN_CHECK(fill(options, goal, busy));  // recorded as well: the proof replays from the first row
  CAPSTAN_CHECK(recorder.commit());
  const std::int64_t bytes_before = recorder.bytes();
  std::int64_t reports = 0;
  const Stopwatch watch;
  CAPSTAN_TRY(const std::int64_t ended, turn(busy, goal, reports, [&] { return recorder.commit(); }));
  const double s = watch.s();
  Json out = conditions_of(busy, ended, reports, s);
  out["per_s"] = rounded(static_cast<double>(ended) / s);
  out["journal_mib"] = rounded(static_cast<double>(recorder.bytes() - bytes_before) / (1 << 20));
  out["commits"] = recorder.commits().to_json();
  progress("tasks: durable {}", out.dump());
  std::int64_t running = 0;
  for (const auto& [id, workload] : busy.world.state().workloads) running += workload.tasks.running;
  out["running_at_the_end"] = running;
  out["state_hash"] = busy.world.controller().state_hash();
  return out;
}

}  // namespace

Result<Json> tasks(const Options& options) {
  const std::string path = (options.directory / "tasks.sqlite").string();
  CAPSTAN_TRY(Json memory, in_own_process([&] { return in_memory(options); }));
  CAPSTAN_TRY(Json disk, in_own_process([&] { return durable(options); }));
  CAPSTAN_TRY(Json proof, in_own_process([&] {
                return prove(path, disk.find("tasks_started_and_ended")->as_int(),
                             disk.find("running_at_the_end")->as_int(), disk.find("state_hash")->as_string());
              }));
  progress("tasks: every start and end is in the journal: {}", proof.dump());
  return Json::object({{"tasks_per_s", *memory.find("per_s")},
                       {"tasks_durable_per_s", *disk.find("per_s")},
                       {"conditions", Json::object({{"in_memory", std::move(memory)},
                                                    {"durable", std::move(disk)},
                                                    {"proof", std::move(proof)}})}});
}

}  // namespace capstan::apps::bench

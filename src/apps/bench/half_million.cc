// How it works: the production driver over SQLite on the half-million fleet. First the file is loaded and one
// gang placed; then arrays of tasks fill the CPU hosts, and every host says that its tasks have started. The
// driver takes snapshots when it finds them due. At the end some thousands of hosts report tasks that ended,
// and the process dies as in a crash; another one starts from what is on disk.
#include <map>
#include <thread>

#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "base/build_id.h"
#include "base/file.h"
#include "controller/driver.h"
#include "controller/driver_load.h"

namespace capstan::apps::bench {
namespace {

using controller::Driver;
using controller::Reports;

constexpr std::int64_t kTasks = 5'000'000;
constexpr std::int64_t kArrays = 50;
constexpr std::int64_t kMilliCpusEach = 9'000;  // 5 million of them are 90 % of 50 million cores
constexpr std::int64_t kTailRows = 5'000;
constexpr std::size_t kInFlightMax = controller::kQueueMax / 2;
constexpr double kSnapshotPauseMs = 4'000;  // for one that is under way to end

std::string journal_path(const Options& options) { return (options.directory / "journal.sqlite").string(); }

workload::Spec array_of(std::int64_t number, std::int64_t tasks) {
  workload::Spec spec;
  spec.kind = workload::Kind::kTasks;
  spec.name = fmt::format("sweep-{}", number);
  spec.command = {"work"};
  spec.resources.milli_cpus = kMilliCpusEach;
  spec.placement.required = fleet::Level::kNone;
  spec.count = 2 * tasks;  // so that those that end are followed by others
  spec.parallelism = tasks;
  return spec;
}

workload::Spec first_gang() {
  workload::Spec spec;
  spec.name = "first";
  spec.command = {"train"};
  spec.ranks = 64;
  spec.resources.gpus = 4;
  spec.placement.segment = 16;
  return spec;
}

Result<Json> submit(Driver& driver, Driver::Command command) {
  return driver.submit(std::move(command)).get();
}

Result<void> submit_all(Driver& driver, std::vector<Reports> all) {
  std::vector<std::future<Result<Json>>> answers;
  const auto wait = [&]() -> Result<void> {
    for (auto& answer : answers) CAPSTAN_CHECK(answer.get());
    answers.clear();
    return {};
  };
  for (Reports& one : all) {
    answers.push_back(driver.submit(std::move(one)));
    if (answers.size() >= kInFlightMax) CAPSTAN_CHECK(wait());
  }
  return wait();
}

// What each host says of the tasks it runs, in order of host; at most so many hosts.
Result<std::vector<Reports>> say(Driver& driver, bool ended, std::size_t hosts_max) {
  std::map<controller::HostId, Reports> by_host;
  CAPSTAN_CHECK(driver.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) {
      for (const auto& [host, runs] : workload.tasks.runs) {
        if (by_host.size() >= hosts_max && !by_host.contains(host)) continue;
        Reports& reports = by_host[host];
        reports.host = state.name(host);
        for (const auto& run : runs) {
          protocol::TaskReport one{id, run.attempt, {}, {}};
          (ended ? one.succeeded : one.started).emplace_back(run.begin, run.end);
          reports.tasks.push_back(std::move(one));
        }
      }
    }
  }));
  std::vector<Reports> out;
  for (auto& [host, reports] : by_host) out.push_back(std::move(reports));
  return out;
}

std::int64_t running_tasks(Driver& driver) {
  std::int64_t count = 0;
  (void)driver.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) count += workload.tasks.running;
  });
  return count;
}

Result<Json> fill(const Options& options) {
  CAPSTAN_TRY(auto journal, journal::open_sqlite_journal(journal_path(options)));
  CAPSTAN_TRY(auto driver, Driver::start(std::move(journal), {.build = build_id(), .rehearses = false}));
  const std::filesystem::path file = options.fleets / "half-million.yaml";
  const Stopwatch load_watch;
  CAPSTAN_TRY(const std::string text, read_file(file));
  CAPSTAN_TRY(fleet::FleetSpec spec, parse_fleet_text(options, text, file.string()));
  CAPSTAN_TRY(const Json answer, submit(*driver, controller::ApplyFleet{std::move(spec), true}));
  const double fleet_s = load_watch.s();
  CAPSTAN_CHECK(submit(*driver, controller::Apply{{first_gang()}, false}));
  const double load_s = load_watch.s();
  progress("half_million: loaded in {:.2f} s: {}", load_s, answer.dump());

  const Stopwatch start_watch;
  const std::int64_t tasks = options.scaled(kTasks, kArrays) / kArrays;
  for (std::int64_t i = 0; i < kArrays; ++i)
    CAPSTAN_CHECK(submit(*driver, controller::Apply{{array_of(i, tasks)}, false}));
  const double start_s = start_watch.s();
  CAPSTAN_TRY(auto started, say(*driver, false, SIZE_MAX));
  const std::size_t hosts = started.size();
  CAPSTAN_CHECK(submit_all(*driver, std::move(started)));
  const std::int64_t running = running_tasks(*driver);
  progress("half_million: {} tasks run on {} hosts, started in {:.1f} s", running, hosts, start_s);
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(kSnapshotPauseMs * options.scale));
  CAPSTAN_TRY(auto ended, say(*driver, true, static_cast<std::size_t>(options.scaled(kTailRows, 10))));
  CAPSTAN_CHECK(submit_all(*driver, std::move(ended)));
  const auto status = driver->status();
  const std::int64_t live = running_tasks(*driver);
  Json out = Json::object(
      {{"load_s", rounded(load_s)},
       {"load_fleet_s", rounded(fleet_s)},
       {"fleet", answer},
       {"running_tasks", live},
       {"hosts_with_tasks", hosts},
       {"start_all_s", rounded(start_s)},
       {"snapshot_stall_ms", rounded(static_cast<double>(status.snapshots.stall_micros_max) / 1e3)},
       {"snapshots", status.snapshots.saved},
       {"snapshot_failures", status.snapshots.failures},
       {"snapshot_text_mib", rounded(static_cast<double>(status.snapshots.text_bytes) / (1 << 20))},
       {"commit_ms_max", rounded(static_cast<double>(status.append_micros_max) / 1e3)},
       {"events", status.events}});
  (void)driver.release();  // as in a crash: nothing is put in order
  return out;
}

Result<Json> recover(const Options& options) {
  const Stopwatch watch;
  CAPSTAN_TRY(const auto journal, journal::open_sqlite_journal(journal_path(options)));
  CAPSTAN_TRY(controller::Loaded loaded, controller::load(*journal));
  const double loaded_s = watch.s();
  // Ready: it has taken office, and placed something.
  const auto began = loaded.controller.apply(
      {loaded.controller.state().time_ms, controller::BeginEpoch{1'000'000, build_id()}});
  workload::Spec gang = first_gang();
  gang.name = "second";
  const auto placed =
      loaded.controller.apply({loaded.controller.state().time_ms, controller::Apply{{gang}, false}});
  const double recover_s = watch.s();
  CAPSTAN_CHECK(placed.answer);
  const auto* second = loaded.controller.state().find("second");
  if (began.events.empty() || second == nullptr || !second->job.in_attempt)
    return fail(Code::kCorrupt, "a gang finds no room after the recovery");
  std::int64_t running = 0;
  for (const auto& [id, workload] : loaded.controller.state().workloads) running += workload.tasks.running;
  return Json::object({{"recover_s", rounded(recover_s)},
                       {"recover_load_s", rounded(loaded_s)},
                       {"tail_rows", loaded.tail_rows},
                       {"tail_mib", rounded(static_cast<double>(loaded.tail_bytes) / (1 << 20))},
                       {"snapshot_seq", loaded.snapshot_seq},
                       {"running_tasks", running},
                       {"state_hash", loaded.controller.state_hash().substr(0, 16)}});
}

}  // namespace

Result<Json> half_million(const Options& options) {
  CAPSTAN_TRY(Json filled, in_own_process([&] { return fill(options); }));
  CAPSTAN_TRY(const Json recovered, in_own_process([&] { return recover(options); }));
  progress("half_million: recovered in {} s", recovered.find("recover_s")->as_double());
  if (*filled.find("running_tasks") != *recovered.find("running_tasks"))
    return fail(Code::kCorrupt, "{} tasks ran before the crash, {} after it",
                filled.find("running_tasks")->as_int(), recovered.find("running_tasks")->as_int());
  Json out = Json::object({{"load_s", *filled.find("load_s")},
                           {"rss_mib", *filled.find("peak_rss_mib")},
                           {"recover_s", *recovered.find("recover_s")},
                           {"snapshot_stall_ms", *filled.find("snapshot_stall_ms")},
                           {"fingerprint", *recovered.find("state_hash")}});
  filled.erase("load_s");
  filled.erase("peak_rss_mib");
  filled.erase("snapshot_stall_ms");
  out["conditions"] = Json::object({{"run", std::move(filled)}, {"recovery", recovered}});
  return out;
}

}  // namespace capstan::apps::bench

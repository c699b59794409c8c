// Questions: how many tasks a second become durable through the driver, what does a snapshot cost the
// deciding thread, and how long does a start take after a crash, with this many hosts and running tasks?
//
//   driver_bench [--hosts N] [--tasks N] [--rounds N] [--directory DIR] [--small]
//
// Hosts join, arrays of tasks fill them, then `rounds` times every host reports what it runs as done, in
// batches of hosts, and gets more. A crash is a copy of the files while the driver runs; it is loaded, and
// its state hash is the fingerprint. Prints one line a figure.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "controller/driver.h"
#include "controller/driver_load.h"

namespace capstan::controller {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kLongPollMs =
    10;  // short, so that idle calls measure the driver and not their patience

struct Options {
  std::int64_t hosts = 395'420;
  std::int64_t tasks = 5'000'000;
  std::int64_t rounds = 1;
  fs::path directory = fs::temp_directory_path();
};

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

void figure(const char* name, double value, const char* unit) {
  fmt::print("{:<28} {:>14.3f} {}\n", name, value, unit);
  std::fflush(stdout);
}

double resident_gb() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident * ::getpagesize()) / 1e9;
}

// Keeps the driver's queue busy without filling it.
class Pump {
 public:
  explicit Pump(Driver& driver) : driver_(driver) {}
  void submit(Driver::Command command) {
    answers_.push_back(driver_.submit(std::move(command)));
    if (answers_.size() >= kQueueMax / 2) wait();
  }
  void wait() {
    for (auto& answer : answers_) {
      if (const auto got = answer.get(); !got) fmt::print(stderr, "driver_bench: {}\n", got.error().message);
    }
    answers_.clear();
  }

 private:
  Driver& driver_;
  std::vector<std::future<Result<Json>>> answers_;
};

std::string host_name(std::int64_t i) { return fmt::format("host-{:06}", i); }

fleet::Capacity host_capacity(const Options& options) {
  return {(options.tasks / options.hosts + 1) * 1'000, std::int64_t{1} << 40, 0};
}

void join_hosts(Driver& driver, const Options& options) {
  Pump pump(driver);
  for (std::int64_t i = 0; i < options.hosts; ++i) {
    JoinHost join;
    join.host = host_name(i);
    join.incarnation = "i1";
    join.build = "b";
    join.capacity = host_capacity(options);
    pump.submit(std::move(join));
  }
  pump.wait();
}

// What runs, as each host would report it done.
std::vector<Reports> all_done(Driver& driver) {
  std::vector<Reports> out;
  (void)driver.read([&](const State& state) {
    for (const auto& [id, workload] : state.workloads) {
      for (const auto& [host, runs] : workload.tasks.runs) {
        Reports reports;
        reports.host = state.name(host);
        for (const TaskRun& run : runs) {
          protocol::TaskReport one;
          one.job = id;
          one.attempt = run.attempt;
          one.succeeded.emplace_back(run.begin, run.end);
          reports.tasks.push_back(std::move(one));
        }
        out.push_back(std::move(reports));
      }
    }
  });
  return out;
}

std::int64_t succeeded(Driver& driver) {
  std::int64_t count = 0;
  (void)driver.read([&](const State& state) {
    for (const auto& [id, workload] : state.workloads) count += workload.tasks.succeeded.size();
  });
  return count;
}

// Every host calls once, with the list of what it runs or without; all have been answered when it returns.
double sync_all(Driver& driver, const Options& options, bool with_list) {
  std::atomic<std::int64_t> answered = 0;
  const auto began = Clock::now();
  for (std::int64_t i = 0; i < options.hosts; ++i) {
    while (i - answered >= static_cast<std::int64_t>(kQueueMax) / 2) ::usleep(200);
    protocol::SyncRequest request;
    request.worker = host_name(i);
    request.incarnation = "i1";
    request.build = "b";
    request.resources = host_capacity(options);
    if (with_list) request.ranks.emplace();
    driver.sync(std::move(request), [&answered](Result<protocol::SyncAnswer>) { ++answered; });
  }
  while (answered < options.hosts) ::usleep(200);
  return static_cast<double>(options.hosts) / seconds_since(began);
}

void churn(Driver& driver, const Options& options) {
  for (std::int64_t round = 0; round < options.rounds; ++round) {
    std::vector<Reports> done = all_done(driver);
    const std::int64_t before = succeeded(driver);
    const DriverStatus at_first = driver.status();
    const auto began = Clock::now();
    Pump pump(driver);
    for (Reports& reports : done) pump.submit(std::move(reports));
    pump.wait();
    const double took = seconds_since(began);
    const DriverStatus status = driver.status();
    figure("durable_tasks_per_s", static_cast<double>(succeeded(driver) - before) / took, "1/s");
    figure("rows_per_s", static_cast<double>(status.rows - at_first.rows) / took, "1/s");
    figure("commit_share", 1e-4 * static_cast<double>(status.append_micros - at_first.append_micros) / took,
           "%");
  }
}

Result<void> measure_start(const fs::path& directory) {
  const auto began = Clock::now();
  CAPSTAN_TRY(auto journal, journal::open_sqlite_journal((directory / "journal.sqlite").string()));
  CAPSTAN_TRY(const Loaded loaded, load(*journal));
  figure("recover_s", seconds_since(began), "s");
  figure("recover_tail_rows", static_cast<double>(loaded.tail_rows), "rows");
  figure("recover_tail_mb", static_cast<double>(loaded.tail_bytes) / 1e6, "MB");
  figure("snapshot_text_mb", static_cast<double>(loaded.snapshot_bytes) / 1e6, "MB");
  const auto hashing = Clock::now();
  fmt::print("fingerprint {} of {} events\n", loaded.controller.state_hash().substr(0, 16),
             loaded.controller.state().event_last);
  figure("write_and_hash_s", seconds_since(hashing), "s");
  return {};
}

Result<void> run(const Options& options, const fs::path& root) {
  fs::create_directories(root / "live");
  CAPSTAN_TRY(auto journal, journal::open_sqlite_journal((root / "live/journal.sqlite").string()));
  CAPSTAN_TRY(auto driver, Driver::start(std::move(journal), {.build = "bench",
                                                              .suspect_after_ms = 3'600'000,
                                                              .lost_after_ms = 7'200'000,
                                                              .long_poll_ms = kLongPollMs}));
  auto began = Clock::now();
  join_hosts(*driver, options);
  figure("join_s", seconds_since(began), "s");
  figure("syncs_per_s, first", sync_all(*driver, options, false), "1/s");
  figure("syncs_per_s, list", sync_all(*driver, options, true), "1/s");
  figure("syncs_per_s, idle", sync_all(*driver, options, false), "1/s");
  began = Clock::now();
  const auto specs = workload::parse_specs(
      fmt::format("{{kind: tasks, name: t, count: {}, command: x, resources: {{cpus: 1}}}}",
                  options.tasks * 4),
      {.source = "bench"});
  if (!specs) return fail(Code::kInvalid, "{}", specs.error().front().text());
  if (const auto applied = driver->submit(Apply{*specs, false}).get(); !applied)
    return std::unexpected(applied.error());
  figure("apply_s", seconds_since(began), "s");
  std::int64_t running = 0;
  (void)driver->read([&](const State& state) { running = state.live_ranks; });
  figure("running", static_cast<double>(running), "tasks");
  figure("resident_gb", resident_gb(), "GB");
  churn(*driver, options);
  figure("commit_ms_max", static_cast<double>(driver->status().append_micros_max) / 1e3, "ms");
  const SnapshotStatus snapshots = driver->status().snapshots;
  figure("snapshots", static_cast<double>(snapshots.saved), "");
  figure("snapshot_failures", static_cast<double>(snapshots.failures), "");
  figure("snapshot_stall_ms", static_cast<double>(snapshots.stall_micros_max) / 1e3, "ms, longest");
  fs::create_directories(root / "crashed");
  (void)driver->read([&](const State&) {
    for (const auto& entry : fs::directory_iterator(root / "live")) {
      std::error_code vanished;
      fs::copy(entry.path(), root / "crashed" / entry.path().filename(), vanished);
    }
  });
  began = Clock::now();
  driver.reset();
  figure("orderly_end_s", seconds_since(began), "s");
  return measure_start(root / "crashed");
}

}  // namespace
}  // namespace capstan::controller

int main(int argc, char** argv) {
  capstan::controller::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto number = i + 1 < argc ? capstan::parse_int(argv[i + 1]) : std::nullopt;
    if (word == "--small") {
      options.hosts = 50;
      options.tasks = 500;
    } else if (word == "--directory" && i + 1 < argc) {
      options.directory = argv[++i];
    } else if (number && (word == "--hosts" || word == "--tasks" || word == "--rounds")) {
      (word == "--hosts" ? options.hosts : word == "--tasks" ? options.tasks : options.rounds) = *number;
      ++i;
    } else {
      fmt::print(stderr,
                 "usage: driver_bench [--hosts N] [--tasks N] [--rounds N] [--directory DIR] [--small]\n");
      return 2;
    }
  }
  const auto root = options.directory / fmt::format("driver_bench_{}", ::getpid());
  const auto done = capstan::controller::run(options, root);
  std::filesystem::remove_all(root);
  if (!done) fmt::print(stderr, "driver_bench: {}\n", done.error().message);
  return done ? 0 : 1;
}

#include "apps/bench_sandbox/neighbours.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "apps/bench_sandbox/meter.h"

extern char** environ;

namespace capstan::bench_sandbox {
namespace {

using namespace sandbox;

constexpr int kWellBehaved = 50;
constexpr const char* kWork = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo $i > /work/done";
constexpr const char* kBombs[] = {
    "bomb() { bomb | bomb & }; bomb; while :; do bomb; done",
    "x=$(head -c 30m /dev/zero | tr '\\0' x); while :; do x=$x$x; done",
    "while :; do head -c 100m /dev/zero > /work/f; for i in 1 2 3 4 5 6 7 8 9; do : > /work/$i$$; done; rm "
    "-f /work/*; done",
    "yes",
};

// The times of the well-behaved, from the common start to each one's end.
Result<std::vector<double>> run_well_behaved(Launcher& launcher) {
  std::vector<double> times;
  std::mutex mutex;
  std::vector<std::unique_ptr<Command>> running;
  const double begun = now_ms();
  for (int i = 0; i < kWellBehaved; ++i) {
    const auto ended = [&](const Result<CommandResult>& result) {
      const std::lock_guard lock(mutex);
      if (result && result->ended == Ended::kExited && result->exit_code == 0)
        times.push_back(now_ms() - begun);
    };
    CAPSTAN_TRY(auto started, launcher.start({.limits = {.memory_bytes = 64 << 20, .pids = 16}},
                                             {.argv = {"/bin/sh", "-c", kWork}}, {.on_end = ended}));
    running.push_back(std::move(started));
  }
  for (auto& one : running) (void)one->wait();
  if (times.size() != kWellBehaved)
    return fail(Code::kIo, "{} of {} well-behaved sandboxes failed", kWellBehaved - times.size(),
                kWellBehaved);
  return times;
}

void bomb_until(Launcher& launcher, const char* script, const std::atomic<bool>& stop,
                std::atomic<int>& ended) {
  while (!stop) {
    CommandSpec command{.argv = {"/bin/sh", "-c", script}};
    command.limits.wall_ms = 2000;
    command.limits.cpu_ms = 2000;
    (void)launcher.run({.limits = {.memory_bytes = 64 << 20, .pids = 64, .tmpfs_bytes = 32 << 20}}, command);
    ++ended;
  }
}

void spawn_until(const std::atomic<bool>& stop, std::vector<double>& times) {
  while (!stop) {
    const double begun = now_ms();
    char* argv[] = {const_cast<char*>("/bin/true"), nullptr};
    pid_t pid = -1;
    if (::posix_spawn(&pid, argv[0], nullptr, nullptr, argv, environ) == 0) ::waitpid(pid, nullptr, 0);
    times.push_back(now_ms() - begun);
    ::usleep(20'000);
  }
}

}  // namespace

Result<Json> measure_neighbours(Launcher& launcher, int rounds) {
  std::vector<double> alone, beside, spawns;
  double alone_last = 0, beside_last = 0;
  std::atomic<int> bombs = 0;
  for (int i = 0; i < rounds; ++i) {
    CAPSTAN_TRY(const std::vector<double> quiet, run_well_behaved(launcher));
    std::atomic<bool> stop = false;
    std::vector<std::jthread> threads;
    for (const char* script : kBombs)
      threads.emplace_back([&, script] { bomb_until(launcher, script, stop, bombs); });
    threads.emplace_back([&] { spawn_until(stop, spawns); });
    ::usleep(300'000);
    const auto loud = run_well_behaved(launcher);
    stop = true;
    threads.clear();
    CAPSTAN_CHECK(loud);
    alone.insert(alone.end(), quiet.begin(), quiet.end());
    beside.insert(beside.end(), loud->begin(), loud->end());
    alone_last += *std::max_element(quiet.begin(), quiet.end());
    beside_last += *std::max_element(loud->begin(), loud->end());
  }
  return Json::object({{"well_behaved", kWellBehaved},
                       {"rounds", rounds},
                       {"bombs_ended", bombs.load()},
                       {"alone_p50_ms", quantile(alone, 0.5)},
                       {"beside_p50_ms", quantile(beside, 0.5)},
                       {"alone_last_ms", alone_last / rounds},
                       {"beside_last_ms", beside_last / rounds},
                       {"ratio_p50", quantile(beside, 0.5) / quantile(alone, 0.5)},
                       {"ratio_last", beside_last / alone_last},
                       {"host_spawn_p50_ms", quantile(spawns, 0.5)},
                       {"host_spawn_p99_ms", quantile(spawns, 0.99)}});
}

}  // namespace capstan::bench_sandbox

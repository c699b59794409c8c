// Runs a spec: one episode of an agent, or all episodes of an array, so many at a time, each recorded; and
// sums up.
//
//   Runner runner(spec, {.launcher = &*launcher, .server = url, .key = key, .events = …});
//   CAPSTAN_TRY(Summary summary, runner.run());
//
// An array's recording is OUTPUT/episodes/T-E.jsonl (task and episode, from 0). Episodes whose recording is
// there are not run again: a run that was broken off goes on where it stopped. A recording of another spec is
// refused, since a summary over both would mean nothing. OUTPUT/summary.json holds the summary. A single
// agent's recordings are OUTPUT/1.jsonl, 2.jsonl, …, one for each run.
// Several processes share an array by shards: each runs every n-th episode;
// a run without shards then finds them all recorded and sums up.
//
// Threads: run() from one, stop() from any; events are called from the runner's threads, one at a time.
// Failure: kConflict (another spec's recordings; another run is writing there), kIo. An episode that could
// not be run to its end (server or sandbox gone) is counted in `failed`, with the first reason, and will be
// run again next time.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "agents/loop/live_world.h"
#include "agents/loop/recording.h"
#include "agents/loop/spec.h"

namespace capstan::agents::loop {

struct EpisodeKey {
  std::size_t task = 0;
  std::int64_t episode = 0;
  friend auto operator<=>(const EpisodeKey&, const EpisodeKey&) = default;
};

struct EpisodeResult {
  EpisodeKey key;
  End end;
  std::filesystem::path recording;
  bool earlier = false;  // by an earlier run
  std::int64_t memory_mib_ms = 0;  // of the sandbox, over time; of this run's
};

// Over the episodes that ended.
struct Summary {
  std::int64_t episodes = 0, wanted = 0, earlier = 0, passed = 0, failed = 0;
  std::string failure;  // the first one's reason
  std::int64_t scored = 0;
  double mean_score = 0;
  std::vector<std::pair<std::int64_t, double>>
      pass_at;  // k, the chance that one of k episodes of a task passes
  std::map<std::string, std::int64_t> reasons;
  Tokens tokens;
  std::int64_t pico_dollars = 0, steps = 0, attempts = 0, cpu_us = 0;
  std::int64_t wall_ms = 0;  // of this run
  Json to_json() const;
};

// `results` sorted by key. pass@k is the unbiased estimate from n episodes with c passes, 1 -
// C(n-c,k)/C(n,k), averaged over tasks that have k episodes, for k = 1, 2, 4, … and the most that every task
// has.
Summary summarize(const std::vector<EpisodeResult>& results, std::size_t tasks);

struct RunnerEvents {
  std::function<void(const EpisodeKey&)> on_begin = {};
  OnPiece on_piece = {};  // of a single agent only
  std::function<void(const EpisodeKey&, const Step&)> on_step = {};
  std::function<void(const EpisodeResult&)> on_end = {};
};

// Episodes number `index`, `index` + `count`, …
struct Shard {
  std::int64_t index = 0, count = 1;
};

struct RunnerOptions {
  sandbox::Launcher* launcher = nullptr;  // not owned
  std::string server;
  std::string key;
  Shard shard = {};  // of an array
  RunnerEvents events = {};
};

class Runner {
 public:
  Runner(const AgentsSpec& spec, RunnerOptions options);
  Result<Summary> run();
  const std::vector<EpisodeResult>& results() const { return results_; }  // sorted; after run()
  void stop();

 private:
  Result<void> find_earlier();
  std::int64_t wanted() const;
  Result<void> run_one(const EpisodeKey& key);
  Result<EpisodeResult> record(const AgentSpec& episode, const EpisodeKey& key, const std::filesystem::path& path);
  void work();
  std::filesystem::path path_of(const EpisodeKey& key) const;

  const AgentsSpec& spec_;
  RunnerOptions options_;
  ModelClient model_;
  std::vector<EpisodeKey> waiting_;  // the next at the back
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;  // guards what follows, and serialises events
  std::vector<EpisodeResult> results_;
  std::vector<LiveWorld*> running_;
  std::int64_t failed_ = 0;
  std::string failure_;
};

}  // namespace capstan::agents::loop

// TaskRunner: chunks of task arrays on this host, each run by a thread in sandboxes; taken up again after the worker's death.
//
//   TaskRunner tasks(data, places, options, reports);
//   tasks.adopt();                                       // before the first sync
//   if (tasks.takes(effect)) tasks.start(effect);
//   tasks.stop(id, grace_ms); tasks.forget(id);          // false: no chunk of that name
//
// As Supervisor's, all operations are idempotent on (job, attempt, chunk), and an end is reported only when it is recorded:
// every result of the chunk is durable then. A chunk that a worker died over is run on by the next one: tasks whose results are
// recorded are not run again. Sandboxes of a worker that dies go with it. At most kChunksAtOnceMax run at once, the
// rest waits; the controller hands out no more than there is room for anyway.
// Threads: any.  Failure: becomes a report.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/rank_runner.h"
#include "worker/report_queue.h"
#include "worker/tasks/chunk_run.h"
#include "worker/tasks/chunk_store.h"

namespace capstan::worker {

inline constexpr std::size_t kChunksAtOnceMax = 256;
inline constexpr std::size_t kArraysOpenMax = 64;
inline constexpr std::size_t kTemplatesMax = 256;

struct TaskRunnerOptions {
  std::string instance;  // of this worker's cgroups
  std::filesystem::path bin;  // with capstan-sandbox and capstan-batch
};

class TaskRunner final : public RankRunner {
 public:
  TaskRunner(const DataDirectory& data, Places places, TaskRunnerOptions options, ReportQueue& reports);
  ~TaskRunner() override;  // what runs is killed, to be run on by the next worker
  TaskRunner(const TaskRunner&) = delete;
  TaskRunner& operator=(const TaskRunner&) = delete;

  Result<void> adopt();

  bool takes(const Json& effect) const override { return effect.contains("chunk"); }
  void start(const Json& effect) override;
  bool stop(const RankId& id, std::int64_t grace_ms) override;
  bool forget(const RankId& id) override;
  void stop_all();

  void add_ranks(Json& list) const override;
  std::size_t unended() const;
  // Where the results of an array are, for who may read them.
  Result<Descriptor> results_of(std::int64_t job);

 private:
  struct Chunk {
    ChunkSpec spec;
    RunControl control;
    bool running = false, ended = false, stopping = false;
    bool resumed = false;
    std::int64_t kill_at_ms = 0;  // of one that is asked to stop
    std::string report;           // its type, once it has ended
    Json exit;
  };

  void enqueue(const std::shared_ptr<Chunk>& chunk);
  void work(std::stop_token stop);
  void run(Chunk& chunk);
  void end(Chunk& chunk, std::string_view type, Json exit);
  void report(const Chunk& chunk);
  Result<sandbox::Launcher*> launcher();
  Result<std::shared_ptr<ArrayOnHost>> array_of(std::int64_t job);
  Result<std::string> template_for(const RankUser& user, const std::string& path);
  void watch_stops(std::stop_token stop);

  const DataDirectory& data_;
  const Places places_;
  const TaskRunnerOptions options_;
  ReportQueue& reports_;
  std::unique_ptr<ChunkStore> store_;

  std::mutex launching_;
  std::unique_ptr<sandbox::Launcher> launcher_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<RankId, std::shared_ptr<Chunk>> chunks_;  // shared with the thread that runs it
  std::map<std::int64_t, std::shared_ptr<ArrayOnHost>> arrays_;  // shared with runs
  std::map<std::pair<dev_t, ino_t>, Descriptor> templates_;
  std::deque<std::shared_ptr<Chunk>> waiting_;
  std::size_t idle_ = 0;
  bool leaving_ = false;
  std::vector<std::jthread> threads_;
  std::jthread stopper_;
};

}  // namespace capstan::worker

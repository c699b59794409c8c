// Runs tasks of one array in sandboxes: one task in one sandbox, or many in one.
//
//   TaskSandboxes sandboxes(launcher, array, input, results_directory, batch_program);
//   Tried tried = sandboxes.run_one(17, 1, control);          // nothing if it was stopped meanwhile
//   sandboxes.run_batch(indices, control, [&](std::vector<TaskOutcome>) { … });
//
// A lost launcher is another try, kLaunchTriesMax times. Threads: one; the controls are for others.
// Failure: of a task is an outcome; what no task could run with (this host has no sandboxes) is an error.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <span>

#include "sandbox/launcher.h"
#include "worker/tasks/batch.h"
#include "worker/tasks/chunk_spec.h"
#include "worker/tasks/task_input.h"

namespace capstan::worker {

inline constexpr int kLaunchTriesMax = 20;

// Lets another thread end what a run is waiting for.
class RunControl {
 public:
  // Nothing starts any more; with `now`, what runs is killed.
  void stop(bool now);
  bool stopping() const;
  // While a run waits for the command. False if it is to be killed at once.
  bool watch(sandbox::Command* command);

 private:
  mutable std::mutex mutex_;
  sandbox::Command* command_ = nullptr;
  bool stopping_ = false, now_ = false;
};

class TaskSandboxes {
 public:
  TaskSandboxes(sandbox::Launcher& launcher, const ArraySpec& array, TaskInput& input, std::string collected,
                std::string batch_program, RankUser user)
      : launcher_(launcher),
        array_(array),
        input_(input),
        collected_(std::move(collected)),
        batch_program_(std::move(batch_program)),
        user_(std::move(user)) {}

  // nullopt: stopped before it ended.
  Result<std::optional<TaskOutcome>> run_one(std::int64_t index, std::int64_t number, RunControl& control);
  // One sandbox after the other, until each task has an outcome or the run is stopped; takes what ended meanwhile together.
  using Take = std::function<void(std::vector<TaskOutcome>)>;
  Result<void> run_batch(std::vector<std::int64_t> indices, RunControl& control, const Take& take);
  // The most memory that one of the sandboxes had.
  std::int64_t memory_peak_bytes() const { return memory_peak_bytes_; }
  // What no single outcome says: of sandboxes in which many tasks ran in one process.
  std::int64_t memory_mib_ms() const { return memory_mib_ms_; }

 private:
  sandbox::SandboxSpec box_spec(bool batch) const;
  sandbox::CommandSpec command_for(std::int64_t index, std::int64_t number) const;
  Result<std::optional<TaskOutcome>> try_one(std::int64_t index, std::int64_t number, RunControl& control);
  // One sandbox: takes outcomes from the front, at least one unless it was stopped or fails.
  Result<void> run_some(std::span<const std::int64_t> indices, RunControl& control, const Take& take);
  Result<sandbox::CommandSpec> batch_command(std::span<const std::int64_t> indices, Descriptor& list) const;
  void collect_from(const sandbox::Sandbox& box, TaskOutcome& outcome) const;

  sandbox::Launcher& launcher_;
  const ArraySpec& array_;
  TaskInput& input_;
  std::string collected_;  // a directory of the user's, for what is collected
  std::string batch_program_;
  RankUser user_;
  std::int64_t memory_peak_bytes_ = 0, memory_mib_ms_ = 0;
};

}  // namespace capstan::worker

// How it works: a run starts a command and waits for it. A batch is one command (batch_driver.c, or Python)
// that answers task by task; when its sandbox ends before all have, the task whose turn it was gets the
// blame, and the rest another sandbox.
#include "worker/tasks/task_sandboxes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "worker/tasks/collect.h"

namespace capstan::worker {
namespace {

using protocol::TaskEnd;
using sandbox::CommandResult;
using sandbox::Ended;

constexpr const char* kBatchProgram = "/mnt/capstan-batch";
constexpr std::int64_t kOutputBytesMax = 64 << 20;  // written by a task before it is killed
constexpr std::int64_t kBatchInputBytesMax = 64 << 20;
constexpr std::int64_t kAnswersBytesMax = 256 << 20;  // of one sandbox: what may wait to be recorded
constexpr std::int64_t kHeadBytes = 256;
constexpr std::int64_t kTakeWaitMs = 200;
constexpr std::int64_t kLaunchPauseMs = 100;
constexpr std::int64_t kFilesPerDirectory = 1'000;

// What a sandbox's end means for the task that ran in it; nullopt: nothing, it did not run to an end.
std::optional<TaskEnd> task_end(const CommandResult& result) {
  switch (result.ended) {
    case Ended::kExited:
      return result.exit_code == 0 ? TaskEnd::kSucceeded : TaskEnd::kExit;
    case Ended::kSignalled:
      return TaskEnd::kSignal;
    case Ended::kMemory:
      return TaskEnd::kMemory;
    case Ended::kWallTime:
      return TaskEnd::kWallTime;
    case Ended::kCpuTime:
      return TaskEnd::kCpuTime;
    case Ended::kOutput:
      return TaskEnd::kOutput;
    case Ended::kKilled:
    case Ended::kLost:
      return std::nullopt;
  }
  return std::nullopt;
}

TaskOutcome no_start(std::int64_t index, const Error& error) {
  TaskOutcome outcome{.index = index, .end = TaskEnd::kNoStart, .exit_code = 127};
  outcome.message = error.message;
  return outcome;
}

bool may_pass(const Error& error) {
  return error.code == Code::kUnavailable || error.code == Code::kExhausted;
}

void fill(TaskOutcome& outcome, CommandResult& result) {
  outcome.exit_code = result.exit_code;
  outcome.signal = result.signal;
  outcome.cpu_us = result.usage.cpu_us;
  outcome.wall_us = result.usage.wall_us;
  outcome.memory_peak_bytes = result.usage.memory_peak_bytes;
  outcome.bytes += result.usage.output_bytes;
  outcome.out = std::move(result.out);
  outcome.err = std::move(result.err);
  outcome.truncated = result.output_truncated;
}

}  // namespace

void RunControl::stop(bool now) {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  now_ = now_ || now;
  if (now_ && command_ != nullptr) command_->kill();
}

bool RunControl::stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

bool RunControl::watch(sandbox::Command* command) {
  const std::lock_guard lock(mutex_);
  command_ = command;
  return command == nullptr || !now_;
}

sandbox::SandboxSpec TaskSandboxes::box_spec(bool batch) const {
  sandbox::SandboxSpec spec;
  const bool alone = array_.collect.empty() && array_.input.empty() && !batch;
  spec.lane = array_.lane == "python"          ? sandbox::Lane::kPythonZygote
              : array_.lane == "node" && alone ? sandbox::Lane::kNodeWarm
                                               : sandbox::Lane::kProcess;
  spec.network = array_.network == "namespace" ? sandbox::Network::kNamespace : sandbox::Network::kNone;
  spec.limits = {.memory_bytes = array_.memory_bytes,
                 .milli_cpus = array_.milli_cpus,
                 .pids = array_.pids + (batch ? 1 : 0),  // the one that runs the others
                 .tmpfs_bytes = array_.disk_bytes,
                 .tmpfs_inodes = array_.files};
  spec.template_root = array_.template_root;
  spec.tenant = array_.tenant;
  if (batch && array_.lane == "process") spec.binds = {{batch_program_, kBatchProgram, false}};
  return spec;
}

sandbox::CommandSpec TaskSandboxes::command_for(std::int64_t index, std::int64_t number) const {
  sandbox::CommandSpec command;
  for (const auto& [name, value] : array_.env) command.env.push_back(name + "=" + with_index(value, index));
  command.env.push_back(fmt::format("CAPSTAN_TASK_INDEX={}", index));
  command.env.push_back(fmt::format("CAPSTAN_TASK_ATTEMPT={}", number));
  if (array_.lane == "process") {
    for (const auto& word : array_.command) command.argv.push_back(with_index(word, index));
  } else if (box_spec(false).lane == sandbox::Lane::kProcess) {
    command.argv = {"node", "-e", array_.code};
  } else {
    command.code = array_.code;
  }
  command.limits = {.wall_ms = array_.timeout_ms,
                    .cpu_ms = array_.cpu_time_ms,
                    .output_bytes = array_.output_bytes,
                    .output_bytes_max = std::max(array_.output_bytes, kOutputBytesMax)};
  return command;
}

// Into COLLECTED/THOUSANDS/INDEX: directories stay small.
void TaskSandboxes::collect_from(const sandbox::Sandbox& box, TaskOutcome& outcome) const {
  const std::int64_t index = outcome.index;
  const auto copied = collect(box.root_fd(), with_index(array_.collect, index), collected_,
                              std::to_string(index / kFilesPerDirectory), std::to_string(index), user_,
                              {.bytes_max = array_.disk_bytes, .files_max = array_.files});
  if (copied) {
    outcome.bytes += copied->bytes;
  } else if (copied.error().code != Code::kNotFound || outcome.good()) {
    outcome.message = "collect: " + copied.error().message;
  }
}

Result<std::optional<TaskOutcome>> TaskSandboxes::try_one(std::int64_t index, std::int64_t number,
                                                          RunControl& control) {
  sandbox::CommandSpec command = command_for(index, number);
  TaskOutcome outcome{.index = index};
  Descriptor input;
  if (!input_.empty()) {
    auto opened = input_.descriptor(index);
    if (!opened) return no_start(index, opened.error());
    input = *std::move(opened);
    struct stat status {};
    if (::fstat(input.get(), &status) == 0) outcome.bytes = status.st_size;
    command.stdin_fd = input.get();
  }
  std::unique_ptr<sandbox::Sandbox> box;
  std::unique_ptr<sandbox::Command> running;
  if (array_.collect.empty()) {
    CAPSTAN_TRY(running, launcher_.start(box_spec(false), command));
  } else {
    CAPSTAN_TRY(box, launcher_.create(box_spec(false)));
    CAPSTAN_TRY(running, box->start(command));
  }
  if (!control.watch(running.get())) running->kill();
  auto result = running->wait();
  control.watch(nullptr);
  if (!result) return std::unexpected(result.error());
  const auto end = task_end(*result);
  if (!end && control.stopping()) return std::nullopt;
  if (!end) return fail(Code::kUnavailable, "its sandbox was lost");
  outcome.end = *end;
  fill(outcome, *result);
  if (box != nullptr) collect_from(*box, outcome);
  return outcome;
}

Result<std::optional<TaskOutcome>> TaskSandboxes::run_one(std::int64_t index, std::int64_t number,
                                                          RunControl& control) {
  for (int tries = 1;; ++tries) {
    if (control.stopping()) return std::nullopt;
    auto tried = try_one(index, number, control);
    if (tried || tried.error().code == Code::kUnsupported) return tried;
    if (!may_pass(tried.error()) || tries == kLaunchTriesMax) return no_start(index, tried.error());
    std::this_thread::sleep_for(std::chrono::milliseconds(kLaunchPauseMs));
  }
}

Result<sandbox::CommandSpec> TaskSandboxes::batch_command(std::span<const std::int64_t> indices,
                                                          Descriptor& list) const {
  std::string tasks;
  for (const std::int64_t index : indices) {
    CAPSTAN_TRY(const std::string input, input_.bytes(index));
    add_task(tasks, index, 1, input);
    if (static_cast<std::int64_t>(tasks.size()) > kBatchInputBytesMax)
      return fail(Code::kExhausted, "the inputs of a batch have more than {} bytes; write a smaller 'batch'",
                  kBatchInputBytesMax);
  }
  CAPSTAN_TRY(list, memory_file(tasks));
  const auto count = static_cast<std::int64_t>(indices.size());
  sandbox::CommandSpec command = command_for(indices.front(), 1);
  if (array_.lane == "process") {
    command.argv = {kBatchProgram, std::to_string(array_.output_bytes),
                    std::to_string(array_.cpu_time_ms / 1000 + 1),
                    std::to_string(std::max(array_.output_bytes, kOutputBytesMax))};
    command.argv.insert(command.argv.end(), array_.command.begin(), array_.command.end());
  } else {
    command.code = python_batch(array_.code, array_.output_bytes);
  }
  command.limits.wall_ms = std::min(kTimeoutMsMax, array_.timeout_ms * count);
  command.limits.cpu_ms = std::min(kTimeoutMsMax, array_.cpu_time_ms * count);
  command.limits.output_bytes = count * (array_.output_bytes + kHeadBytes) + (1 << 20);
  command.limits.output_bytes_max = command.limits.output_bytes;
  command.stdin_fd = list.get();
  return command;
}

Result<void> TaskSandboxes::run_some(std::span<const std::int64_t> indices, RunControl& control,
                                     const Take& take) {
  Descriptor list;
  CAPSTAN_TRY(const sandbox::CommandSpec command, batch_command(indices, list));
  const auto answers =
      std::make_shared<BatchAnswers>(std::vector(indices.begin(), indices.end()),
                                     array_.output_bytes);  // shared with the launcher's thread
  const auto complaint = std::make_shared<std::string>();   // the same: what stands on its standard error
  sandbox::CommandEvents events{.on_output =
                                    [answers, complaint](sandbox::Stream stream, std::string_view piece) {
                                      if (stream == sandbox::Stream::kOut) return answers->write(piece);
                                      if (complaint->size() < 4096) complaint->append(piece.substr(0, 4096));
                                    },
                                .on_end = [answers](const Result<CommandResult>&) { answers->end(); }};
  std::unique_ptr<sandbox::Sandbox> box;
  std::unique_ptr<sandbox::Command> running;
  if (array_.collect.empty()) {
    CAPSTAN_TRY(running, launcher_.start(box_spec(true), command, std::move(events)));
  } else {
    CAPSTAN_TRY(box, launcher_.create(box_spec(true)));
    CAPSTAN_TRY(running, box->start(command, std::move(events)));
  }
  if (!control.watch(running.get())) running->kill();
  std::size_t done = 0;
  bool late = false;
  std::int64_t waited_ms = 0;
  for (bool over = false; !over;) {
    over = answers->ended();
    auto outcomes = answers->take(kTakeWaitMs);
    waited_ms = outcomes.empty() ? waited_ms + kTakeWaitMs : 0;
    done += outcomes.size();
    for (auto& outcome : outcomes) {
      if (box != nullptr) collect_from(*box, outcome);
    }
    if (!outcomes.empty()) take(std::move(outcomes));
    late = !over && waited_ms >= array_.timeout_ms;
    if (late || answers->broken()) {
      running->kill();
      break;
    }
  }
  auto result = running->wait();
  control.watch(nullptr);
  auto last = answers->take(0);  // what came while it was being killed
  done += last.size();
  take(std::move(last));
  if (!result) return std::unexpected(result.error());
  memory_peak_bytes_ = std::max(memory_peak_bytes_, result->usage.memory_peak_bytes);
  if (array_.lane == "python")
    memory_mib_ms_ += ((result->usage.memory_peak_bytes >> 10) * (result->usage.wall_us / 1000) + 1023) >> 10;
  if (done == indices.size() || (result->ended == Ended::kKilled && control.stopping())) return {};
  // The rest of what it was doing goes with the task whose turn it was.
  TaskOutcome outcome{.index = indices[done]};
  const auto end = task_end(*result);
  if (!end && !late && !answers->broken()) return fail(Code::kUnavailable, "its sandbox was lost");
  outcome.end = late ? TaskEnd::kWallTime : end.value_or(TaskEnd::kExit);
  outcome.exit_code = result->exit_code;
  outcome.signal = result->signal;
  outcome.wall_us = late ? array_.timeout_ms * 1000 : 0;
  outcome.memory_peak_bytes = result->usage.memory_peak_bytes;
  outcome.err = std::move(*complaint);
  if (answers->broken()) outcome.message = "it wrote to where the answers of its batch go";
  // One that left its batch with 0 has not done what the others wait for.
  if (outcome.end == TaskEnd::kSucceeded) outcome.end = TaskEnd::kExit;
  take({std::move(outcome)});
  return {};
}

Result<void> TaskSandboxes::run_batch(std::vector<std::int64_t> indices, RunControl& control,
                                      const Take& take) {
  const auto fit = static_cast<std::size_t>(
      std::max<std::int64_t>(kAnswersBytesMax / (array_.output_bytes + kHeadBytes), 1));
  for (int tries = 1; !indices.empty() && !control.stopping();) {
    const std::size_t some = std::min(indices.size(), fit);
    std::size_t taken = 0;
    const auto done =
        run_some(std::span(indices).first(some), control, [&](std::vector<TaskOutcome> outcomes) {
          taken += outcomes.size();
          take(std::move(outcomes));
        });
    indices.erase(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(taken));
    if (done) continue;
    if (done.error().code == Code::kUnsupported) return std::unexpected(done.error());
    if (may_pass(done.error()) && tries++ < kLaunchTriesMax) {
      std::this_thread::sleep_for(std::chrono::milliseconds(kLaunchPauseMs));
      continue;
    }
    for (const std::int64_t index : indices) take({no_start(index, done.error())});
    return {};
  }
  return {};
}

}  // namespace capstan::worker

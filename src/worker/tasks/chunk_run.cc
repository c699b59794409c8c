#include "worker/tasks/chunk_run.h"

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

constexpr std::int64_t kRetryMsMax = 60'000;
constexpr std::int64_t kDiskFullPauseMs = 1'000;

// In small pieces, so that a stop is noticed. False if there was one.
bool rest_until(std::int64_t when_ms, const RunControl& control) {
  for (std::int64_t left; (left = when_ms - shim::monotonic_ms()) > 0 && !control.stopping();)
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min<std::int64_t>(left, 50)));
  return !control.stopping();
}

}  // namespace

ChunkRun::ChunkRun(ArrayOnHost& array, sandbox::Launcher& launcher, std::string batch_program,
                   const ChunkSpec& chunk)
    : array_(array),
      sandboxes_(launcher, array.spec, array.input, array.collected, std::move(batch_program), array.user),
      chunk_(chunk) {}

// A full disk is waited for: a result that is not written has not happened.
bool ChunkRun::flush(RunControl& control) {
  while (!lines_.empty()) {
    const auto done = array_.results->append(lines_);
    if (done) break;
    log_warn("results cannot be written; trying again", "chunk={} why={}", chunk_.id.text(),
             done.error().message);
    if (!rest_until(shim::monotonic_ms() + kDiskFullPauseMs, control)) return false;
  }
  lines_.clear();
  return true;
}

// Records those that have ended for good; the others are to be tried again.
void ChunkRun::take(std::vector<TaskOutcome> outcomes, RunControl& control) {
  for (TaskOutcome& outcome : outcomes) {
    if (outcome.good() || outcome.tries > array_.spec.retries) {
      outcome.count_into(tally_);
      lines_ += outcome.line();
      continue;
    }
    std::int64_t pause_ms = array_.spec.backoff_ms;
    for (std::int64_t i = 1; i < outcome.tries && pause_ms < kRetryMsMax; ++i) pause_ms *= 2;
    outcome.out.clear();
    outcome.err.clear();
    failed_.push_back({std::move(outcome), shim::monotonic_ms() + std::min(pause_ms, kRetryMsMax)});
  }
  (void)flush(control);
}

Result<void> ChunkRun::first_tries(RunControl& control) {
  std::vector<std::int64_t> group;
  for (std::int64_t index = chunk_.first; index < chunk_.first + chunk_.count && !control.stopping();
       ++index) {
    if (!recorded_.indices.contains(index)) {
      if (array_.spec.batch == 1) {
        CAPSTAN_TRY(auto outcome, sandboxes_.run_one(index, 1, control));
        if (outcome) take({*std::move(outcome)}, control);
        continue;
      }
      group.push_back(index);
    }
    const bool last =
        index + 1 == chunk_.first + chunk_.count || (index + 1 - chunk_.first) % array_.spec.batch == 0;
    if (!last || group.empty()) continue;
    CAPSTAN_CHECK(
        sandboxes_.run_batch(std::exchange(group, {}), control,
                             [&](std::vector<TaskOutcome> outcomes) { take(std::move(outcomes), control); }));
  }
  return {};
}

Result<void> ChunkRun::retries(RunControl& control) {
  for (std::size_t next = 0; next < failed_.size(); ++next) {
    Retry retry = std::move(failed_[next]);
    if (!rest_until(retry.not_before_ms, control)) return {};
    const TaskOutcome& before = retry.before;
    CAPSTAN_TRY(auto outcome, sandboxes_.run_one(before.index, before.tries + 1, control));
    if (!outcome) return {};
    outcome->tries = before.tries + 1;
    outcome->cpu_us += before.cpu_us;
    outcome->wall_us += before.wall_us;
    outcome->bytes += before.bytes;
    outcome->memory_peak_bytes = std::max(outcome->memory_peak_bytes, before.memory_peak_bytes);
    take({*std::move(outcome)}, control);  // may add another one
  }
  return {};
}

Result<Json> ChunkRun::go(RunControl& control, bool resumed) {
  if (resumed) {
    CAPSTAN_TRY(recorded_, array_.results->recorded(chunk_.first, chunk_.count));
    tally_ = recorded_.tally;
  }
  auto done = first_tries(control);
  if (done) done = retries(control);
  const bool written = flush(control);
  if (!done) return std::unexpected(done.error());
  tally_.memory_peak_bytes = std::max(tally_.memory_peak_bytes, sandboxes_.memory_peak_bytes());
  tally_.memory_mib_ms += sandboxes_.memory_mib_ms();
  if (!written || tally_.tasks() < chunk_.count)
    return Json::object(
        {{"signal", 15}, {"stopped", true}, {"message", "stopped before all its tasks had ended"}});
  CAPSTAN_CHECK(array_.results->sync());
  return Json::object({{"exit_code", 0}, {"tally", protocol::to_json(tally_)}});
}

}  // namespace capstan::worker

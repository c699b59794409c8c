#include "apps/up/task_metering.h"

#include <algorithm>
#include <map>

#include "base/log.h"
#include "protocol/task_tally.h"

namespace capstan::apps {
namespace {

constexpr std::string_view kSource = "tasks";

struct Used {
  std::string array;
  std::int64_t time_ms = 0;
  protocol::TaskTally tally;
};

}  // namespace

Result<std::unique_ptr<TaskMetering>> TaskMetering::start(controller::Driver& driver,
                                                          store::Database& database) {
  std::unique_ptr<TaskMetering> out(new TaskMetering(driver, database));
  CAPSTAN_CHECK(out->follow());
  out->thread_ = std::jthread([self = out.get()](std::stop_token stop) { self->run(stop); });
  return out;
}

TaskMetering::~TaskMetering() {
  driver_.unfollow(follower_);
  thread_.request_stop();
}

// From where it is recorded; a directory without a position begins now.
Result<void> TaskMetering::follow() {
  CAPSTAN_TRY(auto position, store::compute_position(database_, kSource));
  if (!position) {
    std::int64_t now = 0;
    CAPSTAN_CHECK(driver_.read([&](const controller::State& state) { now = state.event_last; }));
    CAPSTAN_CHECK(database_.write(
        [&](store::Session& session) { return store::set_compute_position(session, kSource, now); }));
    position = now;
  }
  const auto inbox = std::make_shared<Inbox>();
  const auto take = [inbox](const controller::EventLine& line) {
    if (line.json.find("\"tasks_succeeded\"") == line.json.npos ||
        line.json.find("\"tally\"") == line.json.npos)
      return true;
    const std::lock_guard lock(inbox->mutex);
    inbox->overflown = inbox->lines.size() >= kLinesMax;
    if (!inbox->overflown) inbox->lines.push_back(line);
    return !inbox->overflown;
  };
  auto followed = driver_.follow(*position, take);
  if (!followed && followed.error().code == Code::kNotFound) {
    log_warn("some usage of tasks is not recorded: its events were pruned", "since={}", *position);
    followed = driver_.follow(-1, take);
  }
  if (!followed) return std::unexpected(followed.error());
  follower_ = *followed;
  inbox_ = inbox;
  return {};
}

void TaskMetering::run(std::stop_token stop) {
  for (bool last = false; !last;) {
    std::vector<controller::EventLine> lines;
    bool overflown = false;
    {
      std::unique_lock lock(inbox_->mutex);
      inbox_->changed.wait_for(lock, stop, std::chrono::milliseconds(kFlushMs), [] { return false; });
      last = stop.stop_requested();
      lines.swap(inbox_->lines);
      overflown = inbox_->overflown;
    }
    const auto recorded = lines.empty() ? Result<void>() : record(lines);
    if (recorded && !overflown) continue;
    if (!recorded)
      log_warn("usage of tasks is not recorded; trying again", "why={}", recorded.error().message);
    if (last) continue;
    driver_.unfollow(follower_);
    if (const auto again = follow(); !again)
      log_warn("usage of tasks is not followed", "why={}", again.error().message);
  }
}

std::string TaskMetering::name_of(std::int64_t job, const std::string& array) {
  std::string tenant;
  (void)driver_.read([&](const controller::State& state) {
    if (const auto* workload = state.find(job)) tenant = workload->spec.tenant;
  });
  return tenant.empty() ? array : tenant + "/" + array;
}

Result<void> TaskMetering::record(const std::vector<controller::EventLine>& lines) {
  std::map<std::int64_t, Used> arrays;
  for (const auto& line : lines) {
    CAPSTAN_TRY(const Json event, Json::parse(line.json));
    const Json* tally = event.find("tally");
    if (tally == nullptr) continue;
    CAPSTAN_TRY(const protocol::TaskTally more, protocol::task_tally_from_json(*tally));
    Used& used = arrays[event.get_int("job").value_or(0)];
    used.array = event.get_string("name").value_or("");
    used.time_ms = event.get_int("time_ms").value_or(0);
    used.tally.add(more);
  }
  const std::int64_t position = lines.back().seq;
  std::vector<store::ComputeRecord> records;
  for (const auto& [job, used] : arrays) {
    store::ComputeRecord record{
        .id = fmt::format("task/{}/{}", job, position), .time_ms = used.time_ms, .kind = "task", .name = {}};
    record.name = name_of(job, used.array);
    record.sum = {.runs = used.tally.tasks(),
                  .wall_ms = used.tally.wall_us / 1000,
                  .cpu_us = used.tally.cpu_us,
                  .memory_mib_ms = used.tally.memory_mib_ms,
                  .memory_peak_bytes = used.tally.memory_peak_bytes,
                  .bytes_out = used.tally.bytes};
    records.push_back(std::move(record));
  }
  return database_.write([&](store::Session& session) -> Result<void> {
    CAPSTAN_CHECK(store::insert_compute(session, records));
    return store::set_compute_position(session, kSource, position);
  });
}

}  // namespace capstan::apps

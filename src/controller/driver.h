// Driver: the loop around the controller: one thread that takes inputs, makes their events durable, then lets
// out what follows from them.
//
//   CAPSTAN_TRY(auto driver, Driver::start(std::move(journal), {.build = build_id()}));
//   Result<Json> answer = driver->submit(Cancel{"train-1"}).get();
//   driver->sync(request, [writer](Result<SyncAnswer> answer) { … });   // long poll
//   driver->read([&](const State& state) { … });
//
// Group commit: all that arrived meanwhile is applied in order, its events are appended with one fsync, and
// only then do acknowledgements, effects, events and reads leave. Disk full: the batch is refused with
// kExhausted, the state is reloaded from the journal, ranks are left alone, and it is tried again every
// kExhaustedPauseMs. Any other failure of the journal ends the process (options.on_fatal). Threads: every
// public function from any thread; callbacks run on the driver's thread and must not block. Bounds: kQueueMax
// tasks wait (then kExhausted), kBatchMax in one commit.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "controller/controller.h"
#include "controller/driver_snapshots.h"
#include "journal/journal.h"
#include "protocol/messages.h"

namespace capstan::controller {

inline constexpr std::size_t kQueueMax = 10'000;
inline constexpr std::size_t kBatchMax = 1'000;
inline constexpr std::int64_t kExhaustedPauseMs = 500;

struct DriverOptions {
  std::string build = "unknown";
  std::int64_t snapshot_every_events = 0;  // 0: by bytes, see driver_snapshots.h
  std::int64_t suspect_after_ms = 10'000;  // without a word from a worker
  std::int64_t lost_after_ms = 30'000;
  std::int64_t long_poll_ms = protocol::kLongPollMs;
  bool rehearses = true;  // plays the hosts of fleets that were applied as present (driver_rehearsal.h)
  std::function<std::int64_t()> unix_ms = {};  // empty: the system's clocks
  std::function<std::int64_t()> monotonic_ms = {};
  std::function<void(const Error&)> on_fatal = {};  // empty: log and exit with 1
};

// One event as others see it: {"seq","time_ms","type",…} in one line.
struct EventLine {
  std::int64_t seq = 0;
  std::string json;
};

struct DriverStatus {
  std::int64_t epoch = 0;
  bool disk_full = false;
  std::int64_t queue = 0;
  std::int64_t rows = 0;  // appended by this process
  std::int64_t events = 0;
  std::int64_t appends = 0;        // commits
  std::int64_t append_micros = 0;  // all commits together
  std::int64_t append_micros_max = 0;
  SnapshotStatus snapshots;
};

class Driver {
 public:
  static Result<std::unique_ptr<Driver>> start(std::unique_ptr<journal::Journal> journal,
                                               DriverOptions options);
  ~Driver();  // finishes the batch in progress; ranks and workers go on
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  using Command = decltype(Input::what);
  // Acknowledged when durable.
  std::future<Result<Json>> submit(Command command);
  // A worker's call. Answered at once if there is something to say, else within long_poll_ms.
  void sync(protocol::SyncRequest request, std::function<void(Result<protocol::SyncAnswer>)> answer);
  // Runs on the driver's thread over durable state; returns when it has. kExhausted if the queue is full.
  Result<void> read(const std::function<void(const State&)>& look);

  // Up to `limit` events after number `since`; negative: the newest `limit`. kNotFound ("events before N were
  // pruned") if the journal no longer has all that was asked for.
  Result<std::vector<EventLine>> events(std::int64_t since, int limit);
  // Each event after number `since` (negative: only new ones), in order, until `take` returns false. The id
  // is for unfollow.
  Result<std::int64_t> follow(std::int64_t since, std::function<bool(const EventLine&)> take);
  void unfollow(std::int64_t id);

  // Stops all ranks; `drained` is called once when nothing runs any more.
  Result<void> drain(std::function<void()> drained);
  DriverStatus status() const;

 private:
  class Loop;
  explicit Driver(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace capstan::controller

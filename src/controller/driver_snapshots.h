// Snapshots: when the driver takes one, and how, without standing still.
//
// One is due when the rows since the last have grown to half the snapshot's own text, at least
// kRowBytesMin (a small state is replayed faster than it is saved) and at most kRowBytesMax (which replays in
// a few seconds). First a thread makes memory cheap to fork, at a later turn a forked child begins to write
// (journal/snapshotter.h), and at another the driver notices its end and refers to it in the journal. One
// that fails is warned about and tried again after kRetryMs; nothing depends on it but the next start's
// duration. A journal without files gets its text at once. Threads: the driver's.  Time: monotonic
// milliseconds, given.
#pragma once

#include <cstdint>

#include "controller/controller.h"
#include "controller/driver_load.h"
#include "journal/journal.h"
#include "journal/snapshotter.h"

namespace capstan::controller {

inline constexpr std::int64_t kRowBytesMin = std::int64_t{16} << 20;
inline constexpr std::int64_t kRowBytesMax = std::int64_t{256} << 20;

struct SnapshotStatus {
  std::int64_t saved = 0;
  std::int64_t failures = 0;
  std::int64_t stall_micros_max = 0;  // of the deciding thread, for one step
  std::int64_t text_bytes = 0;        // of the newest
};

class Snapshots {
 public:
  struct Options {
    std::int64_t every_events = 0;  // 0: by bytes, as above
    std::int64_t timeout_ms = 300'000;
    std::int64_t retry_ms = 60'000;
  };
  Snapshots(journal::Journal& journal, Options options) : journal_(journal), options_(options) {}

  // The state was loaded from the journal: what it replayed, the next start would replay.
  void started(const Loaded& loaded);
  void appended(std::int64_t bytes) { tail_bytes_ += bytes; }
  // All that was decided is durable. Begins one if it is due, ends one that is written.
  void turn(const Controller& controller, std::int64_t now_ms);
  // Before the journal is closed in order: writes one, if there is anything to save, and waits for it.
  void finish(const Controller& controller);

  const SnapshotStatus& status() const { return status_; }

 private:
  bool is_due(std::int64_t event_last) const;
  bool is_prepared();
  Result<void> begin(const Controller& controller, std::int64_t now_ms);
  void end(const Result<journal::SnapshotFile>& written, std::int64_t now_ms);
  void failed(const Error& error, std::int64_t now_ms);
  void restart_count(const Controller& controller);

  journal::Journal& journal_;
  Options options_;
  journal::Snapshotter snapshotter_;
  SnapshotStatus status_;
  bool preparing_ = false;
  std::int64_t seq_ = 0;         // of the one that is being written
  std::int64_t event_ = 0;       // number of the newest event at the last snapshot
  std::int64_t tail_bytes_ = 0;  // of rows since then
  std::int64_t retry_at_ms_ = INT64_MIN;
};

}  // namespace capstan::controller

// How it works: the fold, fed from rows.
#include "controller/driver_load.h"

#include <optional>

#include "base/log.h"

namespace capstan::controller {
namespace {

Result<void> replay_row(Controller& controller, const journal::Row& row) {
  auto events = events_of(row);
  if (!events) return std::unexpected(std::move(events).error());
  for (const Json& event : *events) {
    if (auto folded = controller.replay(row.time_ms, event); !folded) {
      return std::unexpected(std::move(folded).error().with_context(fmt::format("journal row {}", row.seq)));
    }
  }
  if (controller.state().event_last != row.event_last) {
    return fail(Code::kCorrupt, "journal row {} ends at event {}, not {}", row.seq,
                controller.state().event_last, row.event_last);
  }
  return {};
}

Result<Controller> from_snapshot(journal::Journal& journal, const journal::SnapshotRef& snapshot) {
  CAPSTAN_TRY(const std::string text, journal.snapshot_text(snapshot));
  return Controller::from_snapshot_text(text);
}

// The newest snapshot that can be read, as far as the journal still has the rows after it.
Result<Loaded> newest_snapshot(journal::Journal& journal) {
  CAPSTAN_TRY(const auto snapshots, journal.snapshots());
  for (const journal::SnapshotRef& snapshot : snapshots) {
    auto controller = from_snapshot(journal, snapshot);
    if (controller) {
      const std::int64_t event = controller->state().event_last;
      return Loaded{*std::move(controller), snapshot.seq, snapshot.bytes, event, 0, 0};
    }
    log_warn("a snapshot cannot be used; the one before it is", "row={} why={}", snapshot.seq,
             controller.error().message);
    const Code code = controller.error().code;
    if (code != Code::kCorrupt && code != Code::kNotFound) continue;
    CAPSTAN_CHECK(journal.forget_snapshot(snapshot));
  }
  if (journal.begin_seq() > 0) {
    return fail(Code::kCorrupt,
                "no snapshot can be read, and rows before {} were pruned: restore journal and snapshots from "
                "a backup, or move them away to begin anew (running ranks are then stopped)",
                journal.begin_seq() + 1);
  }
  return Loaded{};
}

}  // namespace

Result<Json::Array> events_of(const journal::Row& row) {
  auto events = Json::parse(row.events);
  if (!events || !events->is_array())
    return fail(Code::kCorrupt, "journal row {}: its events are no JSON array", row.seq);
  return std::move(events->items());
}

void write_snapshot(const Controller& controller, const journal::TextSink& sink) {
  controller.write_snapshot(sink);
}

Result<Loaded> load(journal::Journal& journal) {
  CAPSTAN_TRY(Loaded loaded, newest_snapshot(journal));
  CAPSTAN_CHECK(journal.read(loaded.snapshot_seq + 1, [&](const journal::Row& row) -> Result<void> {
    ++loaded.tail_rows;
    loaded.tail_bytes += bytes_of(row);
    return replay_row(loaded.controller, row);
  }));
  return loaded;
}

Json Verification::to_json() const {
  return Json::object({{"rows", rows},
                       {"first_row", first_row},
                       {"events", events},
                       {"epoch", epoch},
                       {"state_hash", state_hash},
                       {"snapshot_seq", snapshot_seq}});
}

namespace {

// One way to the end: from `start` (or from nothing), through the rows after it. At each later snapshot the
// state must be the one that it holds.
Result<Controller> follow(journal::Journal& journal, const std::optional<journal::SnapshotRef>& start,
                          std::span<const journal::SnapshotRef> snapshots) {
  Controller controller;
  if (start) {
    CAPSTAN_TRY(controller, from_snapshot(journal, *start));
    if (controller.state_hash() != start->state_hash) {
      return fail(Code::kCorrupt, "the snapshot at row {} does not give the state that it was made from",
                  start->seq);
    }
  }
  const auto replay = [&](const journal::Row& row) -> Result<void> {
    CAPSTAN_CHECK(replay_row(controller, row));
    for (const journal::SnapshotRef& snapshot : snapshots) {
      if (snapshot.seq != row.seq) continue;
      const std::string hash = controller.state_hash();
      if (hash == snapshot.state_hash) continue;
      return fail(Code::kCorrupt, "replaying up to row {} gives state {}, but the snapshot there is of {}",
                  row.seq, hash, snapshot.state_hash);
    }
    return {};
  };
  CAPSTAN_CHECK(journal.read(start ? start->seq + 1 : 1, replay));
  return controller;
}

}  // namespace

Result<Verification> verify_journal(const std::string& path) {
  CAPSTAN_TRY(const auto journal, journal::open_sqlite_journal(path, {.read_only = true}));
  CAPSTAN_TRY(const auto snapshots, journal->snapshots());
  const std::int64_t begin = journal->begin_seq();
  CAPSTAN_CHECK(journal->read(begin + 1, [](const journal::Row&) -> Result<void> { return {}; }));
  Verification result;
  result.rows = journal->last_seq();
  result.first_row = begin + 1;
  result.snapshot_seq = snapshots.empty() ? 0 : snapshots.front().seq;
  std::vector<std::optional<journal::SnapshotRef>> starts(snapshots.begin(), snapshots.end());
  if (begin == 0) starts.push_back(std::nullopt);
  if (starts.empty())
    return fail(Code::kCorrupt, "rows before {} were pruned, but there is no snapshot", begin + 1);
  for (const auto& start : starts) {  // one state in memory at a time
    CAPSTAN_TRY(const Controller controller, follow(*journal, start, snapshots));
    const std::string hash = controller.state_hash();
    if (!result.state_hash.empty() && hash != result.state_hash) {
      return fail(Code::kCorrupt,
                  "the rows after {} give state {}, but the snapshot at row {} and its tail give {}",
                  start ? start->seq : 0, hash, result.snapshot_seq, result.state_hash);
    }
    result.state_hash = hash;
    result.events = controller.state().event_last;
    result.epoch = controller.state().epoch;
  }
  return result;
}

}  // namespace capstan::controller

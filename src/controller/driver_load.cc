// How it works: the fold, fed from rows.
#include "controller/driver_load.h"

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

Result<Controller> from_snapshot(const journal::Snapshot& snapshot) {
  CAPSTAN_TRY(const Json json, Json::parse(snapshot.state));
  CAPSTAN_TRY(Controller controller, Controller::from_snapshot(json));
  if (controller.state_hash() != snapshot.state_hash) {
    return fail(Code::kCorrupt, "the snapshot at row {} does not give the state that it was made from",
                snapshot.seq);
  }
  return controller;
}

}  // namespace

Result<Json::Array> events_of(const journal::Row& row) {
  auto events = Json::parse(row.events);
  if (!events || !events->is_array())
    return fail(Code::kCorrupt, "journal row {}: its events are no JSON array", row.seq);
  return events->items();
}

Result<Controller> load(journal::Journal& journal) {
  Controller controller;
  std::int64_t seq = 0;
  CAPSTAN_TRY(const auto snapshot, journal.latest_snapshot(journal.last_seq()));
  if (snapshot) {
    CAPSTAN_TRY(controller, from_snapshot(*snapshot));
    seq = snapshot->seq;
  }
  CAPSTAN_CHECK(journal.read(seq + 1, [&](const journal::Row& row) { return replay_row(controller, row); }));
  return controller;
}

Json Verification::to_json() const {
  return Json::object({{"rows", rows},
                       {"events", events},
                       {"epoch", epoch},
                       {"state_hash", state_hash},
                       {"snapshot_seq", snapshot_seq}});
}

Result<Verification> verify_journal(const std::string& path) {
  CAPSTAN_TRY(const auto journal, journal::open_sqlite_journal(path, {.read_only = true}));
  // Rows that an owner appends meanwhile are left out on both ways.
  const std::int64_t last = journal->last_seq();
  CAPSTAN_TRY(const auto snapshot, journal->latest_snapshot(last));
  Controller whole, resumed;
  if (snapshot) {
    CAPSTAN_TRY(resumed, from_snapshot(*snapshot));
  }
  Verification result;
  const auto replay_both = [&](const journal::Row& row) -> Result<void> {
    if (row.seq > last) return {};
    CAPSTAN_CHECK(replay_row(whole, row));
    result.rows = row.seq;
    if (!snapshot || row.seq > snapshot->seq) return replay_row(resumed, row);
    return {};
  };
  CAPSTAN_CHECK(journal->read(1, replay_both));
  result.events = whole.state().event_last;
  result.epoch = whole.state().epoch;
  result.state_hash = whole.state_hash();
  result.snapshot_seq = snapshot ? snapshot->seq : 0;
  if (resumed.state_hash() != result.state_hash) {
    return fail(Code::kCorrupt,
                "replaying all {} rows gives state {}, but the snapshot at row {} and its tail give {}",
                result.rows, result.state_hash, result.snapshot_seq, resumed.state_hash());
  }
  return result;
}

}  // namespace capstan::controller

// Loading and verifying a journal: the state that it holds.
#pragma once

#include <string>

#include "controller/controller.h"
#include "journal/journal.h"

namespace capstan::controller {

// What a journal gave, and from what.
struct Loaded {
  Controller controller;
  std::int64_t snapshot_seq = 0;  // 0: from the first row
  std::int64_t snapshot_bytes = 0;
  std::int64_t snapshot_event = 0;  // number of the newest event in it
  std::int64_t tail_rows = 0;       // replayed after it
  std::int64_t tail_bytes = 0;
};

// The newest snapshot that is whole, and the rows after it, verified as they are read. A damaged snapshot is
// warned about, forgotten, and the one before it taken; without any, all rows are replayed. kCorrupt if a row
// does not fit, or if rows that would be needed have been pruned.  Memory: the state, and while it is made
// the snapshot's text.
Result<Loaded> load(journal::Journal& journal);

// The state's text, as snapshots hold it; its SHA-256 is the state hash.
void write_snapshot(const Controller& controller, const journal::TextSink& sink);

// The events of one row.
Result<Json::Array> events_of(const journal::Row& row);
// What a row takes in the journal, about.
inline std::int64_t bytes_of(const journal::Row& row) {
  return static_cast<std::int64_t>(row.input.size() + row.events.size() + row.build.size()) + 100;
}

struct Verification {
  std::int64_t rows = 0;       // number of the last
  std::int64_t first_row = 1;  // later if older ones were pruned
  std::int64_t events = 0;
  std::int64_t epoch = 0;
  std::string state_hash;
  std::int64_t snapshot_seq = 0;  // of the newest; 0: there is none
  Json to_json() const;
};
// Verifies the whole chain, every snapshot's file, and that all ways lead to one state hash: from the first
// row (unless it was pruned) and from each snapshot; and that a snapshot's text gives the state that was
// written. Opens read-only; may run beside the owner.
Result<Verification> verify_journal(const std::string& path);

}  // namespace capstan::controller

// Loading and verifying a journal: the state that it holds.
#pragma once

#include <string>

#include "controller/controller.h"
#include "journal/journal.h"

namespace capstan::controller {

// Snapshot and the rows after it. kCorrupt if a row does not fit.
Result<Controller> load(journal::Journal& journal);

// The events of one row.
Result<Json::Array> events_of(const journal::Row& row);

struct Verification {
  std::int64_t rows = 0;
  std::int64_t events = 0;
  std::int64_t epoch = 0;
  std::string state_hash;
  std::int64_t snapshot_seq = 0;  // 0: there is none
  Json to_json() const;
};
// Verifies the chain, replays all rows from the first, and checks that snapshot and tail give the same state
// hash. Opens read-only; may run beside the owner.
Result<Verification> verify_journal(const std::string& path);

}  // namespace capstan::controller

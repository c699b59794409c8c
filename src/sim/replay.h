// Replay: would this build decide the same? The inputs of a live controller's journal, decided again, and
// compared.
//
//   CAPSTAN_TRY(auto journal, journal::open_sqlite_journal(path, {.read_only = true}));
//   CAPSTAN_TRY(const Replay replay, replay_journal(*journal, {}));
//   replay.identical();      // every row's events, byte for byte, and the state at the end
//
// Starts from the oldest snapshot that is kept, or from nothing. Each row's input is given to the production
// controller with the time it had; what comes out is compared with the row. At a difference the replay ends,
// or (`all`) takes the journal's word and goes on, so that each later difference is a decision of its own and
// not a consequence. Where the journal says that a new process took office, the controller is made anew from
// its state, as it was then. Cost: that of the decisions; after a difference, of up to kCheckpointRows rows
// again. Memory: the state and two of its texts. Threads: the caller's.  Failure: the journal's; kCorrupt for
// a row that cannot be read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "journal/journal.h"

namespace capstan::sim {

inline constexpr std::size_t kDifferencesKept = 20;
inline constexpr std::int64_t kCheckpointRows = 2'000;

struct ReplayOptions {
  bool all = false;
  std::string order;  // the queue's order that is tried instead of the one in force; implies `all`
};

struct Difference {
  std::int64_t row = 0;
  std::int64_t time_ms = 0;
  std::string build;    // that decided it
  std::string input;    // its type
  std::string journal;  // the first event that is another; empty: there was none
  std::string now;
};

struct Replay {
  std::int64_t first_row = 1;
  std::int64_t rows = 0;
  std::int64_t events = 0;
  std::int64_t differences = 0;
  std::vector<Difference> kept;                // the first of them
  std::map<std::string, std::int64_t> inputs;  // that were decided otherwise, by type
  std::string state_hash;
  bool identical() const { return differences == 0; }
};

Result<Replay> replay_journal(journal::Journal& journal, const ReplayOptions& options);

}  // namespace capstan::sim

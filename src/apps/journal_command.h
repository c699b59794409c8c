// `capstan journal verify FILE`.
#pragma once

#include <string>

namespace capstan::apps {

// Verifies all rows that the journal still has, replays it from the first (unless that was pruned) and from
// each snapshot, and prints rows, events and state hash; 1 if the chain of checksums is broken, a snapshot is
// damaged or the hashes differ.
int verify_journal_file(const std::string& path);

}  // namespace capstan::apps

// `capstan journal verify FILE`.
#pragma once

#include <string>

namespace capstan::apps {

// Replays the journal from its first row, and from its snapshot, and prints rows, events and state hash; 1 if
// the chain of checksums is broken or the two hashes differ.
int verify_journal_file(const std::string& path);

}  // namespace capstan::apps

// How it works: the short parts and all lengths go through one small buffer, the long parts are hashed where
// they lie.
#include <iterator>

#include "base/sha256.h"
#include "base/text.h"
#include "journal/journal.h"

namespace capstan::journal {

std::string row_checksum(std::string_view previous, const Row& row) {
  fmt::memory_buffer numbers, head;
  fmt::format_to(std::back_inserter(numbers), "{} {} {}", row.seq, row.time_ms, row.event_last);
  fmt::format_to(std::back_inserter(head), "{}:{}{}:{}{}:{}{}:", previous.size(), previous, numbers.size(),
                 std::string_view(numbers.data(), numbers.size()), row.build.size(), row.build,
                 row.input.size());
  Sha256 sha;
  sha.update(std::string_view(head.data(), head.size()));
  sha.update(row.input);
  head.clear();
  fmt::format_to(std::back_inserter(head), "{}:", row.events.size());
  sha.update(std::string_view(head.data(), head.size()));
  sha.update(row.events);
  return hex(sha.finish());
}

}  // namespace capstan::journal

// How it works: vectors. Shares the rules of the real journal: no gaps, all of a batch or nothing.
#include <algorithm>

#include "base/assert.h"
#include "base/sha256.h"
#include "journal/journal.h"

namespace capstan::journal {

std::string row_checksum(std::string_view previous, const Row& row) {
  Sha256 sha;
  const auto add = [&](std::string_view text) {
    sha.update(fmt::format("{}:", text.size()));
    sha.update(text);
  };
  add(previous);
  add(fmt::format("{} {} {}", row.seq, row.time_ms, row.event_last));
  add(row.build);
  add(row.input);
  add(row.events);
  const Digest digest = sha.finish();
  std::string hex;
  for (const auto byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

Result<void> MemoryJournal::append(std::span<const Row> rows) {
  if (failing_) return fail(*failing_, "the journal's disk is full");
  for (const Row& row : rows) {
    CAPSTAN_ASSERT(row.seq == last_seq() + 1);
    rows_.push_back(row);
  }
  return {};
}

Result<void> MemoryJournal::read(std::int64_t seq_from, const RowVisitor& visit) {
  for (std::size_t i = static_cast<std::size_t>(std::max<std::int64_t>(seq_from, 1) - 1); i < rows_.size();
       ++i)
    CAPSTAN_CHECK(visit(rows_[i]));
  return {};
}

Result<std::vector<Row>> MemoryJournal::rows_after_event(std::int64_t event, int rows_max) {
  std::vector<Row> found;
  for (const Row& row : rows_) {
    if (row.event_last > event && found.size() < static_cast<std::size_t>(rows_max)) found.push_back(row);
  }
  return found;
}

Result<void> MemoryJournal::save_snapshot(const Snapshot& snapshot) {
  if (failing_) return fail(*failing_, "the journal's disk is full");
  snapshots_.push_back(snapshot);
  return {};
}

Result<std::optional<Snapshot>> MemoryJournal::latest_snapshot(std::int64_t seq_max) {
  for (auto at = snapshots_.rbegin(); at != snapshots_.rend(); ++at) {
    if (at->seq <= seq_max) return *at;
  }
  return std::nullopt;
}

}  // namespace capstan::journal

// How it works: queues. Shares the rules of the real journal: no gaps, all of a batch or nothing, two
// snapshots, rows pruned only up to the older.
#include <algorithm>

#include "base/assert.h"
#include "base/sha256.h"
#include "journal/journal.h"

namespace capstan::journal {
namespace {
constexpr std::size_t kSnapshotsKept = 2;
}  // namespace

Result<void> MemoryJournal::append(std::span<const Row> rows) {
  if (failing_) return fail(*failing_, "the journal's disk is full");
  for (const Row& row : rows) {
    CAPSTAN_ASSERT(row.seq == last_seq() + 1);
    rows_.push_back(row);
  }
  prune();
  return {};
}

void MemoryJournal::prune() {
  if (snapshots_.size() < kSnapshotsKept) return;
  while (static_cast<std::int64_t>(rows_.size()) > rows_max_ && begin_seq_ < snapshots_.back().ref.seq) {
    begin_seq_ = rows_.front().seq;
    begin_event_ = rows_.front().event_last;
    rows_.pop_front();
  }
}

Result<void> MemoryJournal::read(std::int64_t seq_from, const RowVisitor& visit) {
  seq_from = std::max<std::int64_t>(seq_from, 1);
  if (seq_from <= begin_seq_) return fail(Code::kNotFound, "rows before {} were pruned", begin_seq_ + 1);
  for (auto i = static_cast<std::size_t>(seq_from - begin_seq_ - 1); i < rows_.size(); ++i)
    CAPSTAN_CHECK(visit(rows_[i]));
  return {};
}

Result<std::vector<Row>> MemoryJournal::rows_after_event(std::int64_t event, int rows_max) {
  if (event < begin_event_) return fail(Code::kNotFound, "events before {} were pruned", begin_event_ + 1);
  auto at = std::ranges::upper_bound(rows_, event, {}, &Row::event_last);
  std::vector<Row> found;
  for (; at != rows_.end() && found.size() < static_cast<std::size_t>(rows_max); ++at) found.push_back(*at);
  return found;
}

Result<std::vector<SnapshotRef>> MemoryJournal::snapshots() {
  std::vector<SnapshotRef> refs;
  for (const Kept& kept : snapshots_) refs.push_back(kept.ref);
  return refs;
}

Result<std::string> MemoryJournal::snapshot_text(const SnapshotRef& snapshot) {
  const auto at = std::ranges::find(snapshots_, snapshot, &Kept::ref);
  if (at == snapshots_.end()) return fail(Code::kNotFound, "there is no snapshot at row {}", snapshot.seq);
  return at->text;
}

Result<void> MemoryJournal::forget_snapshot(const SnapshotRef& snapshot) {
  std::erase_if(snapshots_, [&](const Kept& kept) { return kept.ref == snapshot; });
  return {};
}

Result<void> MemoryJournal::save_snapshot(const TextWriter& write) {
  if (failing_) return fail(*failing_, "the journal's disk is full");
  Kept kept;
  write([&](std::string_view piece) { kept.text += piece; });
  kept.ref = {last_seq(), sha256_hex(kept.text), static_cast<std::int64_t>(kept.text.size())};
  std::erase_if(snapshots_, [&](const Kept& other) { return other.ref.seq == kept.ref.seq; });
  snapshots_.push_front(std::move(kept));
  if (snapshots_.size() > kSnapshotsKept) snapshots_.pop_back();
  return {};
}

Result<void> MemoryJournal::keep_snapshot(const SnapshotRef& snapshot) {
  return fail(Code::kUnsupported, "a journal in memory has no file for row {}", snapshot.seq);
}

}  // namespace capstan::journal

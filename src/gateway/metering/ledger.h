// Ledger: usage under way and not yet in SQL, in a file that is mapped into memory, so that a process that is
// killed loses nothing of it.
//
//   CAPSTAN_TRY(auto ledger, Ledger::open(directory / "usage.ledger"));
//   for (const UsageRecord& r : ledger->recovered()) …      // of the run before; then ledger->forget_recovered()
//   std::optional<Ledger::Slot> slot = ledger->begin(record);   // admitted; none: the ledger is full
//   ledger->progress(*slot, 17);                                // completion tokens sent so far
//   ledger->finish(*slot, record);                              // settled
//   ledger->take(records, slots);  … in SQL …  ledger->free(slots);
//
// What a store to the mapping writes survives kill -9 at once, without a system call; a power failure may lose
// what the kernel had not written, some seconds at most (each slot carries a checksum).
// Threads: every method from any thread; a slot's by one at a time.  Cost: about 100 ns.  Bounds: kSlots requests
// that are under way or wait for SQL.  Failure: the system's, with the path.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.h"
#include "store/usage.h"

namespace capstan::gateway {

class Ledger {
 public:
  static constexpr std::uint32_t kSlots = 32'768;
  using Slot = std::uint32_t;

  static Result<std::unique_ptr<Ledger>> open(const std::filesystem::path& path);
  ~Ledger();

  // What the run before left: settled records as they were; those under way with the tokens sent so far, status 0.
  const std::vector<store::UsageRecord>& recovered() const { return recovered_; }
  void forget_recovered();  // they are in SQL: their slots are free

  std::optional<Slot> begin(const store::UsageRecord& record);
  void progress(Slot slot, std::int64_t completion_tokens);
  void finish(Slot slot, const store::UsageRecord& record);
  void free(Slot slot);  // nothing was used

  // Settled records that nobody took yet, at most `records_max`, with their slots.
  void take(std::size_t records_max, std::vector<store::UsageRecord>& records, std::vector<Slot>& slots);
  void give_back(const std::vector<Slot>& slots);  // SQL refused them: they are to be taken again
  void free(const std::vector<Slot>& slots);
  std::size_t settled() const;

 private:
  struct Cell;
  explicit Ledger(Cell* cells) : cells_(cells) {}
  void recover();

  Cell* cells_;
  std::vector<store::UsageRecord> recovered_;
  std::vector<Slot> recovered_slots_;
  mutable std::mutex mutex_;
  std::vector<Slot> free_;
  std::vector<Slot> settled_;
};

}  // namespace capstan::gateway

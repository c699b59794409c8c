// How: a cell has room for the record as it was admitted and as it was settled, so that its one state word decides
// which of them holds, and there is no moment in which neither does. A killed process's stores are seen in their
// order. The checksums guard against pages of different ages after a power failure.
#include "gateway/metering/ledger.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

constexpr std::uint32_t kFree = 0, kOpen = 0x4F50454E, kSettled = 0x53455454;

std::uint64_t checksum(const store::UsageRecord& record) {
  static_assert(sizeof record % 8 == 0);
  std::array<std::uint64_t, sizeof record / 8> words;
  std::memcpy(words.data(), &record, sizeof record);
  std::uint64_t sum = 0x9E3779B97F4A7C15u;
  for (const std::uint64_t word : words) sum = (sum ^ word) * 0x94D049BB133111EBu;
  return Prng::mix(sum);
}

}  // namespace

struct Ledger::Cell {
  std::atomic<std::uint32_t> state;
  std::atomic<std::uint32_t> completion_tokens;  // sent so far; outside the checksum
  struct Checked {
    std::uint64_t sum;
    store::UsageRecord record;
    void set(const store::UsageRecord& value) {
      record = value;
      sum = checksum(value);
    }
    bool holds() const { return sum == checksum(record); }
  };
  Checked open, settled;
};

Result<std::unique_ptr<Ledger>> Ledger::open(const std::filesystem::path& path) {
  static_assert(sizeof(Cell) <= 512 && std::is_trivially_copyable_v<store::UsageRecord>);
  constexpr std::size_t kBytes = sizeof(Cell) * kSlots;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno("cannot open " + path.string(), errno);
  // All of its blocks now: a full disk is told here, not by a signal at a store.
  const int room = ::posix_fallocate(fd, 0, kBytes);
  void* bytes = room == 0 ? ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int why = room == 0 ? errno : room;
  ::close(fd);
  if (bytes == MAP_FAILED) return fail_errno("cannot map " + path.string(), why);
  std::unique_ptr<Ledger> ledger(new Ledger(static_cast<Cell*>(bytes)));
  ledger->recover();
  return ledger;
}

Ledger::~Ledger() { ::munmap(cells_, sizeof(Cell) * kSlots); }

void Ledger::recover() {
  for (Slot slot = kSlots; slot-- > 0;) {
    Cell& cell = cells_[slot];
    const std::uint32_t state = cell.state.load(std::memory_order_acquire);
    const Cell::Checked& kept = state == kOpen ? cell.open : cell.settled;
    if ((state != kOpen && state != kSettled) || !kept.holds()) {
      cell.state.store(kFree, std::memory_order_release);
      free_.push_back(slot);
      continue;
    }
    store::UsageRecord record = kept.record;
    if (state == kOpen) {
      record.completion_tokens = cell.completion_tokens.load();
      record.exact = false;
      record.status = 0;
      // Nothing was sent: nothing is owed.
      if (record.completion_tokens == 0) record.prompt_tokens = 0;
      record.cached_tokens = 0;
      record.nano_dollars =
          store::cost_nano_dollars(record.price, record.prompt_tokens, 0, record.completion_tokens);
    }
    recovered_.push_back(record);
    recovered_slots_.push_back(slot);
  }
}

void Ledger::forget_recovered() {
  free(recovered_slots_);
  recovered_slots_.clear();
  recovered_.clear();
}

std::optional<Ledger::Slot> Ledger::begin(const store::UsageRecord& record) {
  Slot slot = 0;
  {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::nullopt;
    slot = free_.back();
    free_.pop_back();
  }
  Cell& cell = cells_[slot];
  cell.completion_tokens.store(0, std::memory_order_relaxed);
  cell.open.set(record);
  cell.state.store(kOpen, std::memory_order_release);
  return slot;
}

void Ledger::progress(Slot slot, std::int64_t completion_tokens) {
  cells_[slot].completion_tokens.store(static_cast<std::uint32_t>(completion_tokens), std::memory_order_relaxed);
}

void Ledger::finish(Slot slot, const store::UsageRecord& record) {
  Cell& cell = cells_[slot];
  cell.settled.set(record);
  cell.state.store(kSettled, std::memory_order_release);
  const std::lock_guard lock(mutex_);
  settled_.push_back(slot);
}

void Ledger::free(Slot slot) {
  cells_[slot].state.store(kFree, std::memory_order_release);
  const std::lock_guard lock(mutex_);
  free_.push_back(slot);
}

void Ledger::take(std::size_t records_max, std::vector<store::UsageRecord>& records, std::vector<Slot>& slots) {
  {
    const std::lock_guard lock(mutex_);
    if (settled_.size() <= records_max) {
      slots = std::move(settled_);
      settled_ = {};
    } else {
      slots.assign(settled_.begin(), settled_.begin() + static_cast<std::ptrdiff_t>(records_max));
      settled_.erase(settled_.begin(), settled_.begin() + static_cast<std::ptrdiff_t>(records_max));
    }
  }
  records.clear();
  for (const Slot slot : slots) records.push_back(cells_[slot].settled.record);
}

void Ledger::give_back(const std::vector<Slot>& slots) {
  const std::lock_guard lock(mutex_);
  settled_.insert(settled_.begin(), slots.begin(), slots.end());
}

void Ledger::free(const std::vector<Slot>& slots) {
  for (const Slot slot : slots) cells_[slot].state.store(kFree, std::memory_order_release);
  const std::lock_guard lock(mutex_);
  free_.insert(free_.end(), slots.begin(), slots.end());
}

std::size_t Ledger::settled() const {
  const std::lock_guard lock(mutex_);
  return settled_.size();
}

}  // namespace capstan::gateway

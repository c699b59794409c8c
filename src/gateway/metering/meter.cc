#include "gateway/metering/meter.h"

#include <chrono>

#include "base/log.h"

namespace capstan::gateway {
namespace {

constexpr int kFlushMs = 200;  // a transaction for what came meanwhile
constexpr int kRetryMs = 1'000;
constexpr std::size_t kBatchMax = 4'096;

}  // namespace

Result<std::unique_ptr<Meter>> Meter::open(store::Database& database, const std::filesystem::path& path) {
  CAPSTAN_TRY(auto ledger, Ledger::open(path));
  const auto& recovered = ledger->recovered();
  if (!recovered.empty()) {
    CAPSTAN_CHECK(database.write([&](store::Session& session) { return store::insert_usage(session, recovered); }));
    log_info("usage of the run before is settled", "requests={}", recovered.size());
    ledger->forget_recovered();
  }
  CAPSTAN_TRY(const std::int64_t last_id, store::last_usage_id(database));
  std::unique_ptr<Meter> meter(new Meter(database, std::move(ledger), last_id));
  meter->thread_ = std::thread([m = meter.get()] { m->loop(); });
  return meter;
}

Meter::~Meter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (const auto flushed = flush(); !flushed)
    log_warn("usage stays in the ledger until the next start", "error=\"{}\"", flushed.error().message);
}

std::optional<Ledger::Slot> Meter::begin(store::UsageRecord& record, std::int64_t now_ms) {
  std::int64_t last = last_id_.load(std::memory_order_relaxed);
  std::int64_t id = 0;
  do {
    id = std::max(last + 1, now_ms * store::kUsageIdsPerMs);
  } while (!last_id_.compare_exchange_weak(last, id, std::memory_order_relaxed));
  record.id = id;
  return ledger_->begin(record);
}

Result<bool> Meter::write_some() {
  const std::lock_guard writing(writing_);
  std::vector<store::UsageRecord> records;
  std::vector<Ledger::Slot> slots;
  ledger_->take(kBatchMax, records, slots);
  if (records.empty()) return false;
  const auto written =
      database_.write([&](store::Session& session) { return store::insert_usage(session, records); });
  if (!written) {
    ledger_->give_back(slots);
    return std::unexpected(written.error());
  }
  ledger_->free(slots);
  return true;
}

Result<void> Meter::flush() {
  while (true) {
    CAPSTAN_TRY(const bool some, write_some());
    if (!some) return {};
  }
}

void Meter::loop() {
  int wait_ms = kFlushMs;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] { return stopping_; })) return;
    }
    const auto flushed = flush();
    if (!flushed && wait_ms == kFlushMs)
      log_error("usage cannot be written and waits in the ledger", "error=\"{}\"", flushed.error().message);
    wait_ms = flushed ? kFlushMs : kRetryMs;
  }
}

}  // namespace capstan::gateway

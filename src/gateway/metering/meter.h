// Meter: from the end of a request to its row in SQL, behind the request's back.
//
//   CAPSTAN_TRY(auto meter, Meter::open(*database, directory / "usage.ledger"));
//   std::optional<Ledger::Slot> slot = meter->begin(record);      // gets its id; none: too much waits for SQL
//   meter->ledger().finish(*slot, record);
//
// A thread of its own writes what was settled every 200 ms. What the run before had not written is written by
// open(): each request once, by its id.
// Threads: every method from any thread.  Failure: while SQL refuses (disk full), records stay in the ledger and
// are tried again; when that is full, begin() gives none.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "gateway/metering/ledger.h"
#include "store/database.h"

namespace capstan::gateway {

class Meter {
 public:
  static Result<std::unique_ptr<Meter>> open(store::Database& database, const std::filesystem::path& ledger);
  ~Meter();  // writes what is settled

  // Sets the record's id.
  std::optional<Ledger::Slot> begin(store::UsageRecord& record, std::int64_t now_ms);
  Ledger& ledger() { return *ledger_; }
  // Waits until everything that was settled before is in SQL.
  Result<void> flush();

 private:
  Meter(store::Database& database, std::unique_ptr<Ledger> ledger, std::int64_t last_id)
      : database_(database), ledger_(std::move(ledger)), last_id_(last_id) {}
  void loop();
  Result<bool> write_some();  // false: there was nothing

  store::Database& database_;
  std::unique_ptr<Ledger> ledger_;
  std::atomic<std::int64_t> last_id_;
  std::mutex writing_;  // one batch at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace capstan::gateway

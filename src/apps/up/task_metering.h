// Records what tasks in sandboxes used: a row for each array and kFlushMs in which some of its tasks ended.
//
// Follows the controller's events. How far it has come is kept in the same transaction as the rows, so what a controller that
// was killed had not recorded, the next one does, and nothing is counted twice. Rows have no key or project (tasks come through
// the control API); their name is TENANT/ARRAY.
// Threads: one of its own; the driver's only hands over lines.  Bound: kLinesMax lines wait; beyond, it starts over from what
// is recorded.  Failure: the database's is logged, and tried again.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "controller/driver.h"
#include "store/compute_usage.h"

namespace capstan::apps {

inline constexpr std::int64_t kFlushMs = 2'000;
inline constexpr std::size_t kLinesMax = 100'000;

class TaskMetering {
 public:
  static Result<std::unique_ptr<TaskMetering>> start(controller::Driver& driver, store::Database& database);
  ~TaskMetering();  // records what it knows

 private:
  // Between the driver's thread and ours; shared by both, for the driver may still hold the callback.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::vector<controller::EventLine> lines;
    bool overflown = false;
  };
  TaskMetering(controller::Driver& driver, store::Database& database) : driver_(driver), database_(database) {}
  Result<void> follow();
  void run(std::stop_token stop);
  Result<void> record(const std::vector<controller::EventLine>& lines);
  std::string name_of(std::int64_t job, const std::string& array);

  controller::Driver& driver_;
  store::Database& database_;
  std::shared_ptr<Inbox> inbox_;
  std::int64_t follower_ = 0;
  std::jthread thread_;
};

}  // namespace capstan::apps

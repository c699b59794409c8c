// The results of one array on this host: a line of JSON a task, in the order in which tasks ended, appended and never changed.
//
//   CAPSTAN_TRY(auto results, ResultsFile::open(places, user, "squares", "7-1f3a0b2c"));   // D/jobs/squares/results-….jsonl
//   CAPSTAN_CHECK(results->append(lines)); CAPSTAN_CHECK(results->sync());      // then the controller may be told
//   CAPSTAN_TRY(Recorded before, results->recorded(0, 1000));                   // what an earlier worker got done
//
// {"index":5,"ok":true,"end":"succeeded","exit_code":0,"tries":1,"cpu_us":…,"wall_us":…,"memory_peak_bytes":…,"out":"…"}
// A line without an index, or torn by a crash, counts for nothing. The file is the user's: opened with his rights.
// Threads: any. sync() of several callers at once is one fdatasync.  Failure: kExhausted on a full disk; then nothing of the
// call's lines stays.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "base/result.h"
#include "protocol/task_tally.h"
#include "worker/descriptor.h"
#include "worker/places.h"

namespace capstan::worker {

struct TaskOutcome {
  std::int64_t index = 0;
  protocol::TaskEnd end = protocol::TaskEnd::kSucceeded;
  int exit_code = 0;
  int signal = 0;
  std::int64_t tries = 1;
  std::int64_t cpu_us = 0, wall_us = 0;  // of all tries
  std::int64_t memory_peak_bytes = 0;
  std::int64_t bytes = 0;  // of input, output and what was collected
  std::string out{}, err{};
  bool truncated = false;
  std::string message{};  // why it could not start

  bool good() const { return end == protocol::TaskEnd::kSucceeded; }
  std::string line() const;  // with its newline
  std::string failure_text() const;
  void count_into(protocol::TaskTally& tally) const;
};

class ResultsFile {
 public:
  static Result<std::shared_ptr<ResultsFile>> open(const Places& places, const RankUser& user, const std::string& name,
                                                   const std::string& id);
  // The directory and name of an array's file.
  static Result<std::filesystem::path> path_of(const Places& places, const RankUser& user, const std::string& name,
                                               const std::string& id);

  Result<void> append(const std::string& lines);
  Result<void> sync();  // all that was appended before the call

  struct Recorded {
    std::set<std::int64_t> indices;
    protocol::TaskTally tally;
  };
  // Of tasks [first, first + count). Reads the whole file.
  Result<Recorded> recorded(std::int64_t first, std::int64_t count) const;

 private:
  explicit ResultsFile(Descriptor file) : file_(std::move(file)) {}
  Descriptor file_;
  std::mutex append_, sync_;
  std::int64_t appended_ = 0;  // bytes; under append_
  std::int64_t synced_ = 0;    // under sync_
};

}  // namespace capstan::worker

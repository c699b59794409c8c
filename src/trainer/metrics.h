// Metrics: the curve of a run as JSON lines, exact enough to compare two runs bit by bit.
//
//   OUT/metrics.jsonl   one line a step:
//   {"step":12,"loss":1.25,"accuracy":0.5,"lr":…,"grad_norm":…,"tokens":…}
//                       and {"step":12,"eval_loss":…,…} after an evaluation. Only what the run determines: no
//                       times. Numbers read back equal, so equal runs give equal files (cmp).
//   OUT/timing.jsonl    what the clock says: {"step","seconds","tokens_per_second","attempt_started_unix"}
//
// On resume, lines of later steps than the checkpoint's are cut, so metrics.jsonl stays one clean curve.
// Failure: kIo, kExhausted; the caller warns and goes on, since a full disk must not end a run.
// Threads: one owner (rank 0).  Cost: one write a line; an fsync only in sync.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/json.h"
#include "base/result.h"

namespace capstan::trainer {

class Metrics {
 public:
  // Opens both files in `folder` and drops what was recorded after `step`.
  static Result<Metrics> open(const std::filesystem::path& folder, std::uint64_t step);
  Metrics(Metrics&& other) noexcept;
  Metrics& operator=(Metrics&& other) noexcept;
  ~Metrics();

  Result<void> record(const Json& line);
  Result<void> record_timing(const Json& line);
  // Makes the recorded lines durable: called before a checkpoint, so that the curve never ends before it.
  Result<void> sync();

 private:
  Metrics(int metrics, int timing) : metrics_(metrics), timing_(timing) {}
  int metrics_ = -1;
  int timing_ = -1;
};

}  // namespace capstan::trainer

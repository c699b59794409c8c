// What goes into a sandbox that runs many tasks, and what comes out of it.
//
// In goes a list of tasks, on standard input; out come answers, one a task, in that order (batch_driver.c has the form; in the
// python lane a few lines of Python do the same). Answers are not trusted: they are bounded, and taken only for the task
// whose turn it is. Tasks of one batch could forge each other's: they are of one array, and share a sandbox.
// Threads: of BatchAnswers: one writer, one reader.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "worker/tasks/results_file.h"

namespace capstan::worker {

void add_task(std::string& list, std::int64_t index, std::int64_t number, std::string_view input);

// The source that runs `code` once for each task, keeping `output_bytes` of what each writes.
std::string python_batch(const std::string& code, std::int64_t output_bytes);

class BatchAnswers {
 public:
  BatchAnswers(std::vector<std::int64_t> indices, std::int64_t output_bytes)
      : indices_(std::move(indices)), output_bytes_(output_bytes) {}

  // Any piece of what was written; ignored after the first wrong byte.
  void write(std::string_view piece);
  void end();  // nothing more comes

  // The next answers, after waiting for one; empty if none came for `wait_ms`, or none will.
  std::vector<TaskOutcome> take(std::int64_t wait_ms);
  bool ended() const;
  bool broken() const;  // something was written that is no answer

 private:
  bool read_one();

  const std::vector<std::int64_t> indices_;
  const std::int64_t output_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  std::size_t at_ = 0;  // what is before it was read
  std::size_t next_ = 0;
  std::vector<TaskOutcome> ready_;
  bool ended_ = false, broken_ = false;
};

}  // namespace capstan::worker

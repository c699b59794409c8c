// The standard input of the tasks of an array: line i of one file, or a file a task ({index} in the path).
//
// Files are opened with the rights of the array's user, never through a symbolic link as their last component, and only regular
// ones. Lines are found by an index of every kStride-th, made as far as it is needed: 16 bytes for that many lines.
// Threads: any.  Failure: kNotFound names the file, and the line that it lacks.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/descriptor.h"
#include "worker/user.h"

namespace capstan::worker {

inline constexpr std::int64_t kInputBytesMax = 16 << 20;  // of a line, or of a file in a batch

class TaskInput {
 public:
  // An empty pattern: tasks have no input.
  TaskInput(std::string pattern, RankUser user) : pattern_(std::move(pattern)), user_(std::move(user)) {}

  bool empty() const { return pattern_.empty(); }
  // The bytes for task `index`, without the line's end.
  Result<std::string> bytes(std::int64_t index);
  // The same as something that can be read from its begin.
  Result<Descriptor> descriptor(std::int64_t index);

 private:
  Result<Descriptor> open(const std::string& path) const;
  Result<std::string> line(std::int64_t index);
  Result<off_t> offset_near(std::int64_t index);

  static constexpr std::int64_t kStride = 1'000;
  std::string pattern_;
  RankUser user_;
  std::mutex mutex_;
  Descriptor lines_;
  std::vector<off_t> offsets_ = {0};  // of lines 0, kStride, …
};

// A file in memory that holds these bytes and stands at its begin.
Result<Descriptor> memory_file(std::string_view bytes);

}  // namespace capstan::worker

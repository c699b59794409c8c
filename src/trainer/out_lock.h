// OutLock: one run per output folder. Two trainers that write the same checkpoints would ruin both.
//
// The lock is the kernel's (flock on OUT/lock), so it ends with the process, however that ends.
// Failure: kConflict with the owner's pid, kIo.  Threads: one owner.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace capstan::trainer {

class OutLock {
 public:
  static Result<OutLock> take(const std::filesystem::path& folder);
  OutLock(OutLock&& other) noexcept;
  OutLock& operator=(OutLock&& other) noexcept;
  ~OutLock();

 private:
  explicit OutLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace capstan::trainer

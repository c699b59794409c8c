// DataDirectory: the worker's part of the data directory D, opened once and safely.
//
// A worker that is root writes below D, which belongs to another user. So D/worker, D/worker/ranks and D/logs
// must belong to the worker itself and not be symbolic links; they are held as descriptors, and everything
// below them is reached through those, so that nothing done to the names above them redirects a write of
// root. Threads: immutable after open.  Failure: kDenied names the directory and its owner.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/descriptor.h"

namespace capstan::worker {

class DataDirectory {
 public:
  static Result<DataDirectory> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  uid_t owner() const { return owner_; }  // of D: the default user of ranks when the worker is root
  int worker_fd() const { return worker_.get(); }
  int ranks_fd() const { return ranks_.get(); }
  int logs_fd() const { return logs_.get(); }

 private:
  std::filesystem::path path_;
  uid_t owner_ = 0;
  Descriptor worker_, ranks_, logs_;
};

// Opens directory `name` below `parent` without following a symbolic link, making it first if it is missing.
// It must belong to this process's user.
Result<Descriptor> open_own_directory(int parent_fd, const std::string& name, unsigned mode);

// The content of a regular file below a directory, at most 1 MiB, never through a symbolic link.
Result<std::string> read_below(int directory_fd, const std::string& name);
// What lies in it, but for "." and "..".
Result<std::vector<std::string>> names_below(int directory_fd);

}  // namespace capstan::worker

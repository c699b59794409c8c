// The data directory of one Capstan: who owns it, its lock, its tokens, and the files through which its
// processes find each other. docs/formats/data-directory.md lists what lies in it.
//
// Threads: one owner.  Failure: kConflict if another `capstan up` owns the directory (the message names its
// pid), else what the system said with the path.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"

namespace capstan::apps {

// The user that controller, gateway and, by default, ranks run as.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name;
  bool drops_root = false;  // this process is root and the controller shall not be
};

// Not root: the user itself. Root under sudo: the invoking user. Plain root: the system user `capstan` if
// there is one, else `nobody`.
Result<Identity> choose_identity();

class DataDirectory {
 public:
  // Makes the directory (0700) and what it needs inside, owned by `identity`; takes the lock for this process
  // and its children; makes the tokens once.
  static Result<DataDirectory> open(const std::filesystem::path& path, const Identity& identity);

  const std::filesystem::path& path() const { return path_; }
  const std::string& control_token() const { return control_token_; }
  const std::string& worker_token() const { return worker_token_; }

  DataDirectory(DataDirectory&&) noexcept;
  DataDirectory& operator=(DataDirectory&&) = delete;
  ~DataDirectory();

 private:
  DataDirectory() = default;
  std::filesystem::path path_;
  std::string control_token_;
  std::string worker_token_;
  int lock_fd_ = -1;
};

}  // namespace capstan::apps

// Roots that came as archives: each is unpacked once, into a directory named by the archive's content, and kept.
//
//   ImageRoots roots(data / "sessions/roots");
//   roots.keep_only({"/srv/images/bookworm.tar.zst"});                           // at the start: what no template names goes
//   CAPSTAN_TRY(auto directory, roots.find("/srv/images/bookworm.tar.zst"));     // unpacks it, the first time
//
// An archive that was changed (size, time or inode) is read anew; sandboxes keep the root that they began with. Two archives
// of the same content share one. Threads: any; one unpacks at a time and others wait.  Cost: afterwards one stat().
// Failure: of unpack_root; what was unpacked in part is removed.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "agents/sessions/unpack.h"

namespace capstan::agents {

class ImageRoots {
 public:
  explicit ImageRoots(std::filesystem::path directory, UnpackLimits limits = {});

  // Removes what is not of these archives as they are now. While no sandbox uses any.
  void keep_only(const std::vector<std::string>& archives);
  Result<std::filesystem::path> find(const std::string& archive);

 private:
  struct Source {
    std::string stamp, hash;  // of its size, time and inode; of its content
  };
  Result<void> unpack(const std::string& archive, const std::string& hash);

  const std::filesystem::path directory_;
  const UnpackLimits limits_;
  std::mutex mutex_;
  std::map<std::string, Source> known_;  // by the archive's path
};

}  // namespace capstan::agents

// RankUser: who a rank runs as, and the rule that decides it.
//
// A worker that is root runs a rank as the user that its workload names; without a name as the owner of the
// data directory, and as "nobody" if that is root: root only if the workload says `user: root`. Any other
// worker runs every rank as itself and refuses other names. Threads: any.  Failure: kDenied or kNotFound with
// what would be right.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::worker {

struct RankUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<std::uint32_t> groups;
  std::string name;       // or the number, for a uid without a name
  std::string home;       // "/" if the user has none
  bool switched = false;  // differs from the worker's: the shim must change users

  friend bool operator==(const RankUser&, const RankUser&) = default;
};

// `wanted`: a name, a decimal uid, or empty. `directory_owner`: of the data directory.
Result<RankUser> resolve_user(std::string_view wanted, uid_t directory_owner);

// While it lives, file system calls of this thread are made with the user's rights (setfsuid; supplementary
// groups are left out). Nothing happens if the user is the worker's own.
class AsUser {
 public:
  explicit AsUser(const RankUser& user);
  ~AsUser();
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;

 private:
  bool switched_;
};

}  // namespace capstan::worker

// How it works: getpwnam_r and getgrouplist (so NSS sources work), and setfsuid, which on Linux is per thread
// and drops root's file system capabilities while the id is not 0.
#include "worker/user.h"

#include <grp.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "base/text.h"

namespace capstan::worker {
namespace {

struct Entry {
  bool found = false;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name, home;
};

template <class Look>
Entry look_up(Look look) {
  std::vector<char> buffer(64 * 1024);
  passwd storage{};
  passwd* result = nullptr;
  if (look(&storage, buffer.data(), buffer.size(), &result) != 0 || result == nullptr) return {};
  return {true, result->pw_uid, result->pw_gid, result->pw_name, result->pw_dir};
}

Entry by_name(const std::string& name) {
  return look_up([&](auto... rest) { return ::getpwnam_r(name.c_str(), rest...); });
}

Entry by_uid(uid_t uid) {
  Entry entry = look_up([&](auto... rest) { return ::getpwuid_r(uid, rest...); });
  if (!entry.found) entry = {true, uid, static_cast<gid_t>(uid), std::to_string(uid), "/"};
  return entry;
}

std::vector<std::uint32_t> groups_of(const Entry& entry) {
  int count = 64;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  if (::getgrouplist(entry.name.c_str(), entry.gid, groups.data(), &count) < 0) {
    groups.resize(static_cast<std::size_t>(count));
    if (::getgrouplist(entry.name.c_str(), entry.gid, groups.data(), &count) < 0) count = 0;
  }
  return {groups.begin(), groups.begin() + count};
}

}  // namespace

Result<RankUser> resolve_user(std::string_view wanted, uid_t directory_owner) {
  const uid_t self = ::geteuid();
  Entry entry;
  if (wanted.empty()) {
    entry = by_uid(self != 0 ? self : directory_owner);
    if (self == 0 && entry.uid == 0) entry = by_name("nobody");
    if (!entry.found)
      return fail(Code::kNotFound, "there is no user 'nobody' to run ranks as; name one with `user:`");
  } else if (const auto number = parse_int(wanted); number && *number >= 0 && *number < 0xFFFFFFFF) {
    entry = by_uid(static_cast<uid_t>(*number));
  } else {
    entry = by_name(std::string(wanted));
    if (!entry.found) return fail(Code::kNotFound, "user '{}' does not exist on this host", wanted);
  }
  if (self != 0 && entry.uid != self) {
    return fail(Code::kDenied,
                "the workload asks for user '{}', but this worker runs as '{}' and cannot change users: "
                "leave out `user:`, or start Capstan as root",
                wanted, by_uid(self).name);
  }
  RankUser user{.uid = entry.uid,
                .gid = entry.gid,
                .groups = {},
                .name = entry.name,
                .home = entry.home.empty() ? "/" : entry.home,
                .switched = self == 0 && entry.uid != 0};
  if (user.switched) user.groups = groups_of(entry);
  return user;
}

AsUser::AsUser(const RankUser& user) : switched_(user.switched) {
  if (!switched_) return;
  ::setfsgid(user.gid);
  ::setfsuid(user.uid);
}

AsUser::~AsUser() {
  if (!switched_) return;
  ::setfsuid(::geteuid());
  ::setfsgid(::getegid());
}

}  // namespace capstan::worker

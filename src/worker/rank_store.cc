// How it works: mkdir is the atomic claim; write-to-temporary, fsync, rename makes each record whole; a
// removal is a rename to ".forget-ID" first, so that a crash in its middle leaves nothing that looks like a
// rank.
#include "worker/rank_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace capstan::worker {
namespace {

constexpr std::string_view kForgetPrefix = ".forget-";

void remove_flat_directory(int parent_fd, const std::string& name) {
  {
    const Descriptor directory(
        ::openat(parent_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (directory) {
      for (const auto& file : names_below(directory.get()).value_or(std::vector<std::string>{}))
        ::unlinkat(directory.get(), file.c_str(), 0);
    }
  }
  ::unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR);
}

}  // namespace

Result<Descriptor> RankStore::claim(const RankId& id, const Json& spec) const {
  const std::string name = id.text();
  if (::mkdirat(ranks_fd_, name.c_str(), 0700) != 0) {
    if (errno == EEXIST) return fail(Code::kConflict, "rank {} was claimed before", name);
    return fail_errno("cannot claim rank " + name, errno);
  }
  CAPSTAN_TRY(Descriptor directory, open(id));
  if (::flock(directory.get(), LOCK_EX | LOCK_NB) != 0)
    return fail_errno("cannot lock the claim of rank " + name, errno);
  if (::fsync(ranks_fd_) != 0) return fail_errno("cannot sync the claim of rank " + name, errno);
  if (!shim::write_durably(directory.get(), "spec.json", spec.dump() + "\n")) {
    return fail_errno("cannot write spec.json of rank " + name, errno);
  }
  return directory;
}

Result<std::vector<RankId>> RankStore::list() const {
  std::vector<RankId> ids;
  for (const auto& name : names_below(ranks_fd_).value_or(std::vector<std::string>{})) {
    if (name.starts_with(kForgetPrefix)) {
      remove_flat_directory(ranks_fd_, name);
    } else if (const auto id = RankId::parse(name)) {
      ids.push_back(*id);
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Result<Descriptor> RankStore::open(const RankId& id) const {
  Descriptor directory(
      ::openat(ranks_fd_, id.text().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory) return fail_errno("cannot open the record of rank " + id.text(), errno);
  return directory;
}

Result<Json> RankStore::read(const RankId& id, const char* name) const {
  CAPSTAN_TRY(const Descriptor directory, open(id));
  CAPSTAN_TRY(const std::string text, read_below(directory.get(), name));
  auto parsed = Json::parse(text);
  if (!parsed) return fail(Code::kCorrupt, "{} of rank {}: {}", name, id.text(), parsed.error().message);
  return parsed;
}

Result<Json> RankStore::spec(const RankId& id) const { return read(id, "spec.json"); }
Result<Json> RankStore::shim(const RankId& id) const { return read(id, "shim.json"); }
Result<Json> RankStore::exit(const RankId& id) const { return read(id, "exit.json"); }

bool RankStore::locked(const RankId& id) const {
  const auto directory = open(id);
  return directory && ::flock(directory->get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

bool RankStore::started(const RankId& id) const {
  return ::faccessat(ranks_fd_, (id.text() + "/started").c_str(), F_OK, AT_EACCESS) == 0;
}

Result<void> RankStore::write_exit(const RankId& id, const shim::ExitRecord& record) const {
  CAPSTAN_TRY(const Descriptor directory, open(id));
  if (::flock(directory.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(Code::kConflict, "the shim of rank {} is alive", id.text());
  return write_exit(directory, record);
}

Result<void> RankStore::write_exit(const Descriptor& claimed, const shim::ExitRecord& record) {
  if (shim::write_durably(claimed.get(), "exit.json", shim::to_json(record))) return {};
  return fail_errno("cannot write exit.json", errno);
}

Result<void> RankStore::forget(const RankId& id) const {
  const std::string name = id.text();
  const std::string doomed = std::string(kForgetPrefix) + name;
  if (::renameat(ranks_fd_, name.c_str(), ranks_fd_, doomed.c_str()) != 0 && errno != ENOENT) {
    return fail_errno("cannot remove the record of rank " + name, errno);
  }
  remove_flat_directory(ranks_fd_, doomed);
  return {};
}

}  // namespace capstan::worker

// Templates: what a session begins with (a root, packages, limits, variables); and snapshots of sessions' files, which serve as
// templates, too.
//
//   CAPSTAN_TRY(Template form, templates.find("base", owner));
//   CAPSTAN_TRY(std::string id, templates.snapshot(*session, "before-refactoring"));   // then find(id, owner)
//
// `base` and `code-interpreter-v1` always exist: this host's programs (its /usr, so its python3) and an empty home. Others
// are files, templates/NAME.json in the sessions' directory (docs/sessions.md). A snapshot is a copy of /home/user:
// directories, regular files, symbolic links; nothing else.
//
// Threads: every method from any thread.  Bounds: kSnapshotsOfProjectMax, kSnapshotBytesMax, kSnapshotFilesMax.  Failure:
// kNotFound, kExhausted, kInvalid (a name, a template's file, with what would be right), else of the files.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "agents/sessions/image_roots.h"
#include "agents/sessions/network.h"
#include "agents/sessions/owner.h"
#include "agents/sessions/packages.h"
#include "base/result.h"
#include "sandbox/spec.h"

namespace capstan::agents {

class Session;

inline constexpr std::size_t kWarmOfTemplateMax = 100;
inline constexpr std::size_t kSnapshotsOfProjectMax = 100;
inline constexpr std::int64_t kSnapshotBytesMax = 8LL << 30;
inline constexpr std::int64_t kSnapshotFilesMax = 200'000;

struct Template {
  std::string name;
  std::filesystem::path root = {};      // a directory with a system of its own; empty: this host's
  std::string archive = {};             // that the root is unpacked from
  std::filesystem::path snapshot = {};  // a copy of a home to begin with; empty: nothing
  PackageList packages = {};
  std::filesystem::path layer = {};  // where they are installed; PackageLayers finds it
  sandbox::BoxLimits limits = {};
  NetworkTerms network = {};
  std::size_t warm = 0;      // sandboxes to keep ready
  std::string version = {};  // changes with its file and its root
  std::map<std::string, std::string> env = {};
};

struct Snapshot {
  std::string id, name, session, template_name;
  std::int64_t made_ms = 0;
};

class Templates {
 public:
  // While no session exists: roots of archives that no template names any more are removed.
  explicit Templates(std::filesystem::path directory);

  // By the name of a template, or a snapshot's id or name. The first time, a root's archive is unpacked.
  Result<Template> find(const std::string& name, const Owner& owner) const;
  std::vector<std::string> names() const;
  Result<Template> read(const std::string& name) const;  // as its file says, without a look at its root
  // Those that ask for sandboxes to be kept ready; one that is wrong or whose root is missing is left out.
  std::vector<Template> warm() const;

  // The session stands still meanwhile.
  Result<std::string> snapshot(Session& session, const std::string& name);
  std::vector<Snapshot> snapshots(const Owner& owner) const;  // the oldest first
  Result<void> remove(const std::string& id, const Owner& owner);
  // Into a new session, in which nothing runs yet.
  Result<void> restore(const Template& form, Session& session) const;

 private:
  std::filesystem::path place_of(const Owner& owner) const;
  Result<Template> with_root(Template form) const;

  const std::filesystem::path directory_;
  mutable ImageRoots images_;  // a cache
  std::mutex making_;  // one snapshot at a time, so that the bound on their number holds
};

}  // namespace capstan::agents

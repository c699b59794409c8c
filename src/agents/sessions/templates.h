// Templates: what a new session begins with (a root, limits, variables), and snapshots of sessions' files, which are
// templates, too.
//
//   CAPSTAN_TRY(Template form, templates.find("base", owner));
//   CAPSTAN_TRY(std::string name, templates.snapshot(*session, "before-refactoring"));
//
// `base` and `code-interpreter-v1` always exist: this host's programs (its /usr, so its python3) and an empty home.
//
// Threads: every method from any thread.  Failure: kNotFound, kExhausted (kSnapshotsOfProjectMax, kSnapshotBytesMax),
// kInvalid (a name), else of the files.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "agents/sessions/owner.h"
#include "base/result.h"
#include "sandbox/spec.h"

namespace capstan::agents {

class Session;

struct Template {
  std::string name;
  std::filesystem::path root = {};      // a directory with a system of its own; empty: this host's
  std::filesystem::path snapshot = {};  // a copy of /work to begin with; empty: nothing
  sandbox::BoxLimits limits = {};
  std::map<std::string, std::string> env = {};
};

class Templates {
 public:
  explicit Templates(std::filesystem::path directory) : directory_(std::move(directory)) {}
  Result<Template> find(const std::string& name, const Owner& owner) const;
  Result<void> restore(const Template& form, Session& session) const;

 private:
  const std::filesystem::path directory_;
};

}  // namespace capstan::agents

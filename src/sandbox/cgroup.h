// Cgroups: limits for ranks (memory, CPU, processes), and a way to find and end every process of one.
//
//   Cgroups cgroups = Cgroups::detect("a1b2c3");                 // tries out what this host lets us do
//   for (const Capability& c : cgroups.capabilities()) …         // what is enforced, what is not and why
//   CAPSTAN_TRY(auto directories, cgroups.create("7-1-0", {.memory_bytes = 1 << 30, .milli_cpus = 2000}));
//   … the rank's process joins each directory (sandbox/cgroup_files.h) …
//   Cgroups::remove(directories);
//
// Both kinds of host work: version 2 alone, and the hybrid form where controllers are bound to version 1
// mounts and version 2 only groups processes. Everything lies in one directory "capstan/INSTANCE" per
// hierarchy: in version 1 below this process's own cgroup (so its limits hold for ranks too), in version 2
// below the nearest ancestor that may hand out controllers. On a host without usable cgroups all lists are
// empty and nothing fails. Threads: detect before threads start (it forks); then any thread.  Cost: create is
// a dozen small system calls.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "sandbox/capability.h"
#include "sandbox/hierarchy.h"

namespace capstan::sandbox {

struct Limits {
  std::int64_t memory_bytes = 0;  // 0: none. Memory and swap together; beyond it the kernel kills
  std::int64_t milli_cpus =
      0;  // 0: none. The share under contention, and a ceiling (never below one whole CPU)
  std::int64_t pids_max = 0;  // 0: none. Processes and threads; beyond it fork fails
};

class Cgroups {
 public:
  static Cgroups detect(const std::string& instance);
  static Cgroups detect_in(const std::vector<Hierarchy>& hierarchies, const std::string& instance);

  // One per usable hierarchy: where this instance's groups are.
  struct Base {
    int version = 0;
    std::vector<std::string> controllers;  // that were proven to work
    std::string directory;                 // ".../capstan/INSTANCE"
  };
  const std::vector<Base>& bases() const { return bases_; }
  const std::vector<Capability>& capabilities() const { return capabilities_; }
  bool can(std::string_view capability) const;

  // Makes the directories of one group with its limits. A group of that name left over from before is reused
  // only if no process is in it, else kConflict. On failure nothing is left behind.
  Result<std::vector<std::string>> create(const std::string& name, const Limits& limits) const;
  // Removes what create made; processes must be gone. Missing directories are fine.
  static void remove(const std::vector<std::string>& directories);
  // Ends what runs in groups of this instance whose names are not among `keep`, and removes those groups:
  // what a process that died in the middle of a create left behind. Groups that do not empty at once stay for
  // the next sweep.
  void sweep(const std::set<std::string>& keep) const;
  // Removes the instance's own directories if they are empty.
  void remove_instance() const;

 private:
  void try_hierarchy(const Hierarchy& hierarchy, const std::string& instance);
  void note(const std::string& name, bool ok, const std::string& why);
  static Result<void> set_limits(const Base& base, const std::string& directory, const Limits& limits);

  std::vector<Base> bases_;
  std::vector<Capability> capabilities_;
};

}  // namespace capstan::sandbox

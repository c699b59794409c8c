// Where this process stands in the cgroup hierarchies of the host, versions 1 and 2 alike.
//
// Threads: none kept.  Cost: reads /proc/self/mountinfo and /proc/self/cgroup.  A host without cgroups has
// none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::sandbox {

struct Hierarchy {
  int version = 0;  // 1 or 2
  std::vector<std::string>
      controllers;  // of interest here: memory, cpu, pids; those that version 2 offers at its root
  std::string mount_point;
  std::string own;  // directory of this process's cgroup, below the mount point

  bool has(std::string_view controller) const;
};

std::vector<Hierarchy> find_hierarchies();

// The same from given texts of /proc/self/mountinfo and /proc/self/cgroup; `root` is put before mount points
// when files are read (tests).
std::vector<Hierarchy> parse_hierarchies(std::string_view mountinfo, std::string_view own_cgroups,
                                         const std::string& root = {});

// The smallest memory limit on the way from this process's cgroup to the root; nullopt if there is none.
std::optional<std::int64_t> own_memory_limit_bytes(const std::vector<Hierarchy>& hierarchies);
// The smallest CPU quota on that way, in thousandths of a CPU; nullopt if there is none.
std::optional<std::int64_t> own_cpu_limit_milli(const std::vector<Hierarchy>& hierarchies);

}  // namespace capstan::sandbox

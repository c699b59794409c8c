// The launcher's cgroups: one directory per sandbox in each hierarchy of the host, version 2 alone or the
// hybrid form where memory, cpu and pids are bound to version 1 mounts and version 2 groups, freezes and
// kills.
//
// Directories are held open, so that they work after the launcher has left the host's mounts behind. A name
// is a sandbox's ("b7") or that of a command within one ("b7/c2"). Groups that served one command and are
// empty again are kept for the next sandbox: making and removing one costs the kernel half a millisecond of
// CPU, most of it later and elsewhere. Threads: one.  Failure: false with errno.  Cost: take about 0.03 ms if
// one is spare, else 0.2 ms; each limit that differs from what the group has, one write.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/spec.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

inline constexpr std::size_t kSpareGroupsMax = 64;
// What the kernel may still charge to a group that is kept: caches and stocks, no process's memory.
inline constexpr std::int64_t kSpareGroupBytesMax = 2 << 20;

struct GroupUsage {
  std::int64_t cpu_us = 0;
  std::int64_t memory_bytes = 0;  // now
  std::int64_t memory_peak_bytes = 0;
  std::int64_t memory_kills = 0;
};

class Groups {
 public:
  // `directory` belongs to this launcher alone, and is made anew if the one before has just removed it. Exactly
  // one base must be of version 2.
  bool add_base(int version, std::vector<std::string> controllers, const std::string& directory);
  bool has(std::string_view controller) const;

  // A group with the default limits, and no usage so far.
  bool take(std::string& name);
  bool set_limits(const std::string& name, const BoxLimits& limits);
  bool set_memory(const std::string& name, std::int64_t bytes);
  // A command's group within a long-lived sandbox's: version 2, and memory.
  bool make_nested(const std::string& name);

  // The version 2 directory, for clone3.
  Fd open_unified(const std::string& name) const;
  // cgroup.procs of version 1 directories; of all that make_nested made, if `nested`.
  bool open_procs(const std::string& name, bool nested, std::vector<Fd>& procs) const;

  GroupUsage usage(const std::string& name) const;
  std::int64_t cpu_us(const std::string& name) const;
  bool kill(const std::string& name) const;
  bool freeze(const std::string& name, bool frozen) const;

  // Back from a sandbox that is dead; false while processes are still leaving it. `reusable`: nothing was
  // made in it, and it was never frozen.
  bool give_back(const std::string& name, bool reusable);
  // A group in a group; false while processes are still leaving it.
  bool remove(const std::string& name) const;
  // No more spare ones: for the end.
  void remove_spares();
  // When no group is left.
  void remove_bases();
  // What an earlier launcher left in these directories: killed and removed. False if something is left.
  bool sweep() const;

 private:
  struct Base {
    int version = 0;
    std::vector<std::string> controllers;
    Fd directory;
    std::string name;  // in its parent
    bool has(std::string_view controller) const;
    bool has_leaves() const { return version == 2 && !controllers.empty(); }
  };
  // What a group has, and what it had when it was taken.
  struct State {
    BoxLimits limits{};
    GroupUsage before{};
    Fd peak{};  // version 2: through this, memory.peak counts from its last reset
  };
  bool make(const std::string& name);
  bool renew(const std::string& name, State& state);
  bool read_usage(const std::string& name, const State* state, GroupUsage& usage) const;
  std::int64_t memory_now(const std::string& name) const;
  bool write(const Base& base, const std::string& name, const char* file, const std::string& value) const;
  std::string read(const Base& base, const std::string& name, const char* file) const;
  const Base* unified() const;
  bool set_cpu(const Base& base, const std::string& name, std::int64_t milli_cpus) const;
  bool set_memory_in(const Base& base, const std::string& name, std::int64_t bytes) const;
  void sweep_base(const Base& base, const std::string& below) const;

  std::vector<Base> bases_;
  std::map<std::string, State> states_;
  std::deque<std::string> spare_;
  std::size_t spare_max_ = kSpareGroupsMax;
  std::uint64_t next_ = 0;
};

}  // namespace capstan::sandbox

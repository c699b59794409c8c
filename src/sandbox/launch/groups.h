// The launcher's cgroups: one directory per sandbox in each hierarchy of the host, version 2 alone or the
// hybrid form where memory, cpu and pids are bound to version 1 mounts and version 2 groups, freezes and
// kills.
//
// Directories are held open, so that they work after the launcher has left the host's mounts behind. A name
// is a sandbox's ("b7") or that of a command within one ("b7/c2"). Threads: one.  Failure: false with errno.
// Cost: make and remove about 0.1 ms each; each limit that differs from the default one write.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/spec.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

struct GroupUsage {
  std::int64_t cpu_us = 0;
  std::int64_t memory_bytes = 0;  // now
  std::int64_t memory_peak_bytes = 0;
  std::int64_t memory_kills = 0;
};

class Groups {
 public:
  // `directory` belongs to this launcher alone. Exactly one base must be of version 2.
  bool add_base(int version, std::vector<std::string> controllers, const std::string& directory);
  bool has(std::string_view controller) const;

  // With the default limits.
  bool make(const std::string& name);
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

  // False while processes are still leaving it.
  bool remove(const std::string& name) const;
  // What an earlier launcher left in these directories: killed and removed. False if something is left.
  bool sweep() const;

 private:
  struct Base {
    int version = 0;
    std::vector<std::string> controllers;
    Fd directory;
    bool has(std::string_view controller) const;
  };
  bool write(const Base& base, const std::string& name, const char* file, const std::string& value) const;
  std::string read(const Base& base, const std::string& name, const char* file) const;
  const Base* unified() const;
  bool set_cpu(const Base& base, const std::string& name, std::int64_t milli_cpus) const;
  bool set_memory_in(const Base& base, const std::string& name, std::int64_t bytes) const;
  void sweep_base(const Base& base, const std::string& below) const;

  std::vector<Base> bases_;
};

}  // namespace capstan::sandbox

// The mounts of one sandbox, made by its first process while it is still root: /proc read-only, one bounded
// tmpfs behind /work, /tmp and /dev/shm, terminals, and directories bound in from outside.
//
// Threads: one.  Failure: a Fault.  Cost: about 0.2 ms.
#pragma once

#include <cstdint>
#include <vector>

#include "sandbox/launch/confine.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

class FirstMounts {
 public:
  // Before it is known what will run: /proc and the tmpfs, with the default limits, owned by `host_uid`.
  Fault make(std::uint32_t host_uid);
  // For this sandbox: its limits and binds (detached trees, in the order of spec.binds).
  Fault finish(const SandboxSpec& spec, const std::vector<Fd>& binds);
  int proc() const { return proc_.get(); }

 private:
  Fault make_proc();
  Fault make_tmpfs(std::uint32_t host_uid);
  Fd proc_;           // the writable one, covered by the read-only one
  Fd tmpfs_context_;  // to change its limits
  Fd tmpfs_;
  std::uint32_t owner_ = 0;
};

}  // namespace capstan::sandbox

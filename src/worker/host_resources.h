// What this host offers to ranks.
//
// CPUs: those that this process may use (affinity), at most its cgroup's quota. Memory: the host's, at most
// its cgroup's limit, less a reserve for Capstan and the system (a sixteenth, between 128 MiB and 2 GiB).
// GPUs: NVIDIA device nodes /dev/nvidia0, /dev/nvidia1 … Threads: any.  Cost: a few small files.
#pragma once

#include <cstdint>

#include "base/json.h"

namespace capstan::worker {

struct HostResources {
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t gpus = 0;

  Json to_json() const;
};

HostResources host_resources();

// The reserve rule by itself: what is offered of `total_bytes`.
std::int64_t offered_memory_bytes(std::int64_t total_bytes);

}  // namespace capstan::worker

// A host as the core sees it: what it offers and whether it may be used.
//
// Values only. The topology above hosts (trays, UltraServers, spine blocks) is described in docs/ARCHITECTURE.md.
#pragma once

#include <cstdint>
#include <string>

namespace capstan::fleet {

enum class Health {
  kHealthy,  // takes work
  kSuspect,  // missed heartbeats: keeps its work, takes no new work
  kLost,     // declared dead: its work is lost
};

// Integers: thousandths of a CPU, bytes, whole accelerators.
struct Capacity {
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t gpus = 0;
  friend bool operator==(const Capacity&, const Capacity&) = default;
};

struct Host {
  std::string name;
  Capacity capacity;
  Health health = Health::kHealthy;
  friend bool operator==(const Host&, const Host&) = default;
};

}  // namespace capstan::fleet

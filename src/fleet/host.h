// A host as the core sees it: what it offers, what may be done with it, and the kinds of host there are.
//
// Values only. Where hosts stand is in topology.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::fleet {

// What the failure detector says.
enum class Health {
  kHealthy,  // takes work
  kSuspect,  // missed heartbeats: keeps its work, takes no new work
  kLost,     // declared dead: its work is lost
  kAbsent,   // known from a fleet file; its worker has never called
};

// What people and policies say. Work starts only in service.
enum class Condition {
  kInService,
  kDraining,     // its work moves away
  kFailed,       // broken
  kInRepair,     // being repaired
  kQuarantined,  // it flapped: it was lost again and again
};
std::string_view condition_name(Condition condition);  // "in service", "draining", …

// Integers: thousandths of a CPU, bytes, whole accelerators, and thousandths of one further accelerator that may
// be shared (0 to 999; always 0 for what a host offers).
struct Capacity {
  std::int64_t milli_cpus = 0;
  std::int64_t memory_bytes = 0;
  std::int64_t gpus = 0;
  std::int64_t gpu_milli = 0;
  friend bool operator==(const Capacity&, const Capacity&) = default;
};

inline constexpr std::int64_t kGpusPerHostMax = 32;

// A kind of host: an EC2 instance type, a tray, a workstation.
struct HostClass {
  std::string name;  // "p6e-gb200.36xlarge"
  Capacity capacity;
  std::string gpu_model;                 // "gb200"; empty: none
  std::int64_t gpu_memory_bytes = 0;     // of each
  bool fractional = false;               // its GPUs may be shared
  std::vector<std::int64_t> gpu_slices = {};  // MIG-like: the only shares allowed, in thousandths; empty: any
  friend bool operator==(const HostClass&, const HostClass&) = default;
};

struct Host {
  std::string name;
  Capacity capacity;
  Health health = Health::kHealthy;
  friend bool operator==(const Host&, const Host&) = default;
};

}  // namespace capstan::fleet

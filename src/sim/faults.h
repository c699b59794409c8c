// Faults: what breaks in a simulated fleet, when, and how long it stays so. Sources: failure_plan.h draws them from rates.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "fleet/topology.h"

namespace capstan::sim {

struct Fault {
  enum class Scope : std::uint8_t {
    kProcess,  // a rank on the host dies; the host is well
    kGpu,      // one GPU: its rank dies, the GPU takes nothing until it is repaired
    kHost,     // the tray or host is gone, and with it all that runs there
    kDomain,   // the whole NVLink domain of the host
    kPlanned,  // the host is drained, and back when the work on it is done
  };
  std::int64_t time_ms = 0;
  Scope scope = Scope::kHost;
  fleet::HostId host{};
  std::int64_t gpu = 0;
  std::int64_t detected_after_ms = 0;  // until the controller hears of it
  std::int64_t repair_ms = 0;          // from detection until it is back
  std::string_view cause;              // of static life
};

class FaultSource {
 public:
  virtual ~FaultSource() = default;
  virtual std::optional<Fault> next() = 0;  // never earlier than the one before
};

}  // namespace capstan::sim

// What the gateway knows of its replicas between requests: tokens under way, and who failed a moment ago.
//
// Threads: safe from any thread.  Time is an argument, in milliseconds of a steady clock.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gateway/gateway.h"
#include "routing/routing.h"

namespace capstan::gateway {

inline constexpr std::int64_t kEjectionMs =
    2'000;  // a replica that could not be reached gets nothing for so long

class LoadBoard {
 public:
  // The replicas as routing sees them; those in `tried` and those ejected are not healthy.
  std::vector<routing::ReplicaLoad> view(const std::vector<Replica>& replicas,
                                         const std::vector<std::string>& tried, std::int64_t now_ms) const;
  void begin(const std::string& id, std::int64_t tokens);
  void end(const std::string& id, std::int64_t tokens);
  void eject(const std::string& id, std::int64_t now_ms);

 private:
  struct Entry {
    std::int64_t tokens = 0;
    std::int64_t ejected_until_ms = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace capstan::gateway

// Where placed sandboxes are: what the front asks of whoever knows all hosts (apps/up/placed_hosts.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace capstan::agents {

// A session host, as the front reaches it: its own host's (all empty), or another's, through that host's worker.
struct Place {
  std::string host;         // its name
  std::string url, prefix;  // of the worker; before the target of every request
  std::string token;        // that opens it
  std::string incarnation;  // the worker's, in every answer of it
  bool is_own() const { return host.empty(); }
};

// Threads: any; calls may block.
class Places {
 public:
  virtual ~Places() = default;
  // Grows whenever find() may answer otherwise than before.
  virtual std::uint64_t version() const = 0;
  // Of the sandbox of that name, or of that session. What is none that the scheduler placed is own, as is one that has ended:
  // the session host knows best. kConflict: there is one, open to `owner` (kOwnerHeader; "": nobody), and it does not run now.
  virtual Result<Place> find(const std::string& sandbox, const std::string& owner) = 0;
  virtual std::vector<Place> with_sandboxes() = 0;  // other hosts that have some now, by name
  virtual std::vector<Place> others() = 0;          // every other host that can be asked, by name
};

}  // namespace capstan::agents

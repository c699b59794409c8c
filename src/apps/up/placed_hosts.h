// Where the controller knows placed sandboxes to be: for the front (agents/front/places.h).
//
// This host is the one of this name: there is one worker of a name. The way to another is its worker's own port, as for logs.
// Threads: any; a call waits for the driver's turn.  Cost: find one look-up; the lists go through all workloads and hosts, but
// not where there is only this host.
#pragma once

#include <string>

#include "agents/front/places.h"
#include "apps/up/driver_backend.h"
#include "apps/up/sandbox_owners.h"

namespace capstan::apps {

class PlacedHosts final : public agents::Places {
 public:
  // Both outlive it.
  PlacedHosts(DriverBackend& backend, const SandboxOwners& owners, std::string worker_token);

  std::uint64_t version() const override { return backend_.version(); }
  Result<agents::Place> find(const std::string& sandbox, const std::string& owner) override;
  std::vector<agents::Place> with_sandboxes() override;
  std::vector<agents::Place> others() override;

 private:
  agents::Place place(const controller::State& state, controller::HostId host) const;

  DriverBackend& backend_;
  const SandboxOwners& owners_;
  const std::string worker_token_;
  const std::string own_;
};

}  // namespace capstan::apps

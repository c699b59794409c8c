// Whose a placed sandbox is: the project of the gateway that has the name of its tenant.
//
//   SandboxOwners owners(tenancy.tenants());
//   backend.on_start_sandbox([&](const State& state, protocol::StartRank& start) { owners.put(state, start); });
//
// A tenant ORGANISATION > PROJECT has the project ORGANISATION/PROJECT; one at the top has default/TENANT. Where there is none of
// that name, that of the tenant above holds, and at last default/default. It is looked up when the sandbox starts, and stays.
// Threads: any.  Cost: a look-up in memory for each level of the tenant.
#pragma once

#include <string>

#include "agents/sessions/owner.h"
#include "controller/state.h"
#include "protocol/messages.h"
#include "store/tenants.h"

namespace capstan::apps {

class SandboxOwners {
 public:
  explicit SandboxOwners(const store::Tenants& projects) : projects_(projects) {}  // which outlive it

  agents::Owner of(const controller::State& state, const std::string& tenant) const;
  // Says it in the effect that starts a sandbox.
  void put(const controller::State& state, protocol::StartRank& start) const;

 private:
  const store::Tenants& projects_;
};

}  // namespace capstan::apps

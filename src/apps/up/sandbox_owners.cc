#include "apps/up/sandbox_owners.h"

namespace capstan::apps {

agents::Owner SandboxOwners::of(const controller::State& state, const std::string& tenant) const {
  const auto found = state.tenants.find(tenant);
  for (auto at = found.value_or(scheduler::kRootTenant); at != scheduler::kRootTenant; at = state.tenants.parent(at)) {
    const auto above = state.tenants.parent(at);
    const std::string organisation(above == scheduler::kRootTenant ? store::kDefaultName : state.tenants.name(above));
    const auto project = projects_.find_project(organisation + "/" + state.tenants.name(at));
    if (project) return {.organisation = project->organisation, .project = project->id};
  }
  return {};
}

void SandboxOwners::put(const controller::State& state, protocol::StartRank& start) const {
  const agents::Owner owner = of(state, start.tenant);
  (*start.session)["owner"] = Json::object({{"organisation", owner.organisation}, {"project", owner.project}});
}

}  // namespace capstan::apps

#include "apps/up/placed_hosts.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <set>

#include "agents/sessions/session_id.h"
#include "worker/sandboxes/sandbox_relay.h"

namespace capstan::apps {
namespace {

using controller::State;
using controller::Workload;

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

// The sandbox that is meant, if the scheduler has it still.
const Workload* meant(const State& state, const std::string& sandbox) {
  const auto number = agents::workload_of(sandbox);
  const Workload* found = number ? state.find(*number) : nullptr;
  if (found == nullptr || found->job.session != sandbox) found = state.find(sandbox);
  const bool fits = found != nullptr && found->spec.kind == workload::Kind::kSandbox && !controller::has_ended(found->state);
  return fits ? found : nullptr;
}

}  // namespace

PlacedHosts::PlacedHosts(DriverBackend& backend, const SandboxOwners& owners, std::string worker_token)
    : backend_(backend), owners_(owners), worker_token_(std::move(worker_token)), own_(host_name()) {}

agents::Place PlacedHosts::place(const State& state, controller::HostId host) const {
  const auto contact = state.contacts.find(host);
  if (contact == state.contacts.end() || state.name(host) == own_) return {};
  const auto& [incarnation, build, url, capabilities] = contact->second;
  return {.host = state.name(host),
          .url = url,
          .prefix = std::string(worker::kSessionHostPrefix),
          .token = worker::relay_token(worker_token_, incarnation),
          .incarnation = incarnation};
}

Result<agents::Place> PlacedHosts::find(const std::string& sandbox, const std::string& owner) {
  Result<agents::Place> found = agents::Place{};
  CAPSTAN_CHECK(backend_.read([&](const State& state) {
    const Workload* workload = meant(state, sandbox);
    if (workload == nullptr) return;
    const auto& job = workload->job;
    if (!job.session.empty() && !job.ranks.empty() && job.ranks[0].live()) {
      found = place(state, job.ranks[0].host);
    } else if (const auto who = agents::owner_of(owner);
               who.operates || who.project == owners_.of(state, workload->spec.tenant).project) {
      found = fail(Code::kConflict, "sandbox {0} does not run now: it is {1}; `capstan explain {0}` says more",
                   workload->spec.name, controller::state_name(workload->state));
    }
  }));
  return found;
}

std::vector<agents::Place> PlacedHosts::with_sandboxes() {
  std::vector<agents::Place> out;
  (void)backend_.read([&](const State& state) {
    if (state.contacts.size() < 2) return;
    std::set<std::pair<std::string, controller::HostId>> hosts;
    for (const auto& [id, workload] : state.workloads) {
      if (workload.spec.kind != workload::Kind::kSandbox || workload.job.session.empty() || workload.job.ranks.empty()) continue;
      const auto& rank = workload.job.ranks[0];
      if (rank.live()) hosts.emplace(state.name(rank.host), rank.host);
    }
    for (const auto& [name, host] : hosts) {
      if (auto there = place(state, host); !there.is_own()) out.push_back(std::move(there));
    }
  });
  return out;
}

std::vector<agents::Place> PlacedHosts::others() {
  std::vector<agents::Place> out;
  (void)backend_.read([&](const State& state) {
    for (const auto& [host, contact] : state.contacts) {
      auto there = place(state, host);
      if (!there.is_own() && state.inventory.host(host).health == fleet::Health::kHealthy) out.push_back(std::move(there));
    }
  });
  std::ranges::sort(out, {}, &agents::Place::host);
  return out;
}

}  // namespace capstan::apps

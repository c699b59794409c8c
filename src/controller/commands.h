// What each kind of input does, apart from the workloads' own families (decision.h).
#pragma once

#include "base/json.h"
#include "controller/decision.h"
#include "controller/input.h"

namespace capstan::controller {

// {"results":[{"kind","name","action","changes","restarts"}]}, or why nothing of it was done.
Result<Json> apply_specs(Decision& decision, Apply apply);
Result<Json> cancel(Decision& decision, const Cancel& command);
// {"name","replicas","from"}. Outside of what the service's `autoscale` allows it is refused.
Result<Json> scale(Decision& decision, const Scale& command);
void begin_epoch(Decision& decision, const BeginEpoch& begin);
void drain(Decision& decision);
void join_host(Decision& decision, const JoinHost& join);
void set_health(Decision& decision, const SetHealth& change);
void take_reports(Decision& decision, const Reports& reports);
// ---- the fleet and its rules (fleet_commands.cc, claims_commands.cc)
Result<Json> apply_fleet(Decision& decision, const ApplyFleet& apply);
Result<Json> set_tenants(Decision& decision, const SetTenants& command);
Result<Json> remove_tenant(Decision& decision, const RemoveTenant& command);
Result<Json> reserve(Decision& decision, const Reserve& command);
Result<Json> unreserve(Decision& decision, const Unreserve& command);
Result<Json> maintain(Decision& decision, const Maintain& command);
Result<Json> defragment(Decision& decision, const Defragment& command);
// Clears hosts for claims that begin, ends those whose time is over.
void pass_boundaries(Decision& decision, std::int64_t looked_until_ms);
// Keeps these hosts for a gang that waits; gives up what was kept for it.
// From `from_ms` on; until then work that ends before may still use them. A patient claim waits for work to end by itself.
void claim_for(Decision& decision, const Workload& workload, std::set<HostId> hosts, bool patient,
               std::int64_t from_ms);
std::set<HostId> hosts_of(const std::vector<scheduler::Slice>& slices);
void give_up_claim(Decision& decision, const Workload& workload, std::string_view why);
Result<Json> set_condition(Decision& decision, const SetCondition& command);
Result<Json> set_policy(Decision& decision, const SetPolicy& command);
void set_host_condition(Decision& decision, const std::vector<HostId>& hosts, fleet::Condition condition,
                        std::string_view why);

// ---- parts of folds that a snapshot is read with, too
Result<void> add_fleet(State& state, const Json& event);
Result<void> add_tenants(State& state, const Json& event);
Result<void> add_claim(State& state, const Json& event);
Json claim_to_json(const State& state, const scheduler::Claim& claim);
// The hosts that are meant: names of hosts, or of UltraServers for all of theirs.
Result<std::vector<HostId>> named_hosts(const State& state, const std::vector<std::string>& names);
Result<void> add_local_host(State& state, const std::string& name, const Json& json);
Result<void> resize_host(State& state, HostId host, const Json& capacity);

}  // namespace capstan::controller

// How it works: a claim is one event that names its hosts; a timer clears them before it begins and ends it when its time is
// over. Work on claimed hosts that has no right to be there leaves gracefully and goes on elsewhere.
#include <algorithm>

#include "controller/commands.h"
#include "controller/planner.h"
#include "protocol/fields.h"
#include "scheduler/claim_hosts.h"
#include "scheduler/defragment.h"
#include "scheduler/diagnose.h"

namespace capstan::controller {
namespace {

using protocol::need_int;
using protocol::need_text;
using scheduler::Claim;
using scheduler::ClaimKind;

constexpr std::int64_t kReservedHostsMax = 100'000;

std::optional<ClaimKind> parse_kind(std::string_view name) {
  for (const auto kind : {ClaimKind::kReservation, ClaimKind::kMaintenance, ClaimKind::kGang}) {
    if (scheduler::claim_kind_name(kind) == name) return kind;
  }
  return std::nullopt;
}

Json claim_event(const State& state, const Claim& claim) {
  Json json = claim_to_json(state, claim);
  Json event = Json::object({{"type", "claim_added"}});
  for (auto& [key, value] : json.members()) event[key] = std::move(value);
  return event;
}

Result<void> check_window(const State& state, const Decision& decision, std::int64_t from_ms, std::int64_t until_ms) {
  if (until_ms <= from_ms) return fail(Code::kInvalid, "the window must end after it begins");
  if (until_ms <= decision.time_ms) return fail(Code::kInvalid, "the window lies in the past");
  if (state.claims.all().size() >= scheduler::kClaimsMax)
    return fail(Code::kExhausted, "there are {} reservations and windows already", scheduler::kClaimsMax);
  return {};
}

// Why a reservation cannot be had, and what could.
Error refused(const State& state, const Reserve& command, const scheduler::ClaimRefusal& refusal, std::int64_t now_ms) {
  using Why = scheduler::ClaimRefusal::Why;
  switch (refusal.why) {
    case Why::kTooManyClaims:
      return {Code::kExhausted, fmt::format("there are {} reservations and windows already", scheduler::kClaimsMax), {}};
    case Why::kNoSuchPlace:
      return {Code::kNotFound, "there are no such hosts; see: capstan fleet show", {}};
    case Why::kTooLarge:
      return {Code::kInvalid,
              fmt::format("no cluster has {} such hosts{}, the most is {}", command.hosts,
                          command.per_domain > 0 ? fmt::format(" in groups of {}", command.per_domain) : "",
                          refusal.hosts_possible),
              {}};
    case Why::kTaken:
      break;
  }
  (void)state;
  std::string text = fmt::format("not {} hosts for that time: others have reserved them or they are out of service; {} "
                                 "could be had then",
                                 command.hosts, refusal.hosts_possible);
  if (refusal.possible_from_ms < INT64_MAX)
    text += fmt::format(", all of them from {} on", scheduler::time_text(refusal.possible_from_ms, now_ms));
  return {Code::kConflict, text, {}};
}

bool may_stay(const Claim& claim, const Workload& workload) {
  return claim.kind == ClaimKind::kReservation && workload.spec.placement.reservation == claim.name;
}

void clear(Decision& decision, const Claim& claim) {
  for (const HostId host : claim.hosts) {
    std::vector<std::int64_t> jobs;
    for (const auto& holder : decision.state.inventory.host(host).holders) jobs.push_back(holder.job);
    for (const std::int64_t id : jobs) {
      Workload& workload = *decision.state.find(id);
      if (may_stay(claim, workload)) continue;
      stop_on_host(decision, workload, host, INT64_MAX, StopWhy::kDrain,
                   fmt::format("host {} is kept for {} {}", decision.state.name(host),
                               scheduler::claim_kind_name(claim.kind), claim.name));
    }
  }
}

void end_claim(Decision& decision, const Claim& claim, std::string_view why) {
  const Claim copy = claim;
  decision.emit(Json::object({{"type", "claim_removed"}, {"claim", copy.id}, {"name", copy.name}, {"why", why}}));
  if (copy.kind != ClaimKind::kReservation) return;
  // What ran on it by right has it no more.
  for (const HostId host : copy.hosts) {
    std::vector<std::int64_t> jobs;
    for (const auto& holder : decision.state.inventory.host(host).holders) jobs.push_back(holder.job);
    for (const std::int64_t id : jobs) {
      Workload& workload = *decision.state.find(id);
      if (!may_stay(copy, workload)) continue;
      stop_on_host(decision, workload, host, INT64_MAX, StopWhy::kDrain,
                   fmt::format("reservation {} is over", copy.name));
    }
  }
}

}  // namespace

Json claim_to_json(const State& state, const Claim& claim) {
  Json hosts = Json::array();
  for (const HostId host : claim.hosts) hosts.push_back(state.name(host));
  return Json::object({{"claim", claim.id},
                       {"kind", scheduler::claim_kind_name(claim.kind)},
                       {"name", claim.name},
                       {"tenant", claim.tenant},
                       {"for", claim.job},
                       {"from_ms", claim.from_ms},
                       {"until_ms", claim.until_ms},
                       {"patient", claim.patient},
                       {"hosts", std::move(hosts)}});
}

Result<void> add_claim(State& state, const Json& event) {
  Claim claim;
  CAPSTAN_TRY(claim.id, need_int(event, "claim", 1));
  CAPSTAN_TRY(const std::string kind, need_text(event, "kind"));
  const auto parsed = parse_kind(kind);
  if (!parsed || state.claims.find(claim.id) != nullptr) return fail(Code::kCorrupt, "claim {} does not fit", claim.id);
  claim.kind = *parsed;
  CAPSTAN_TRY(claim.name, need_text(event, "name"));
  CAPSTAN_TRY(claim.tenant, need_text(event, "tenant"));
  CAPSTAN_TRY(claim.job, need_int(event, "for"));
  CAPSTAN_TRY(claim.from_ms, need_int(event, "from_ms"));
  CAPSTAN_TRY(claim.until_ms, need_int(event, "until_ms"));
  CAPSTAN_TRY(claim.patient, protocol::bool_or(event, "patient", false));
  CAPSTAN_TRY(const Json::Array hosts, protocol::array_or_empty(event, "hosts", SIZE_MAX));
  for (const Json& item : hosts) {
    if (!item.is_string()) return fail(Code::kCorrupt, "'hosts' must be names");
    CAPSTAN_TRY(const HostId host, host_named(state, item.as_string()));
    claim.hosts.insert(host);
  }
  state.next_claim = std::max(state.next_claim, claim.id + 1);
  state.claims.add(state.inventory, std::move(claim));
  return {};
}

std::set<HostId> hosts_of(const std::vector<scheduler::Slice>& slices) {
  std::set<HostId> hosts;
  for (const auto& slice : slices) hosts.insert(slice.host);
  return hosts;
}

void claim_for(Decision& decision, const Workload& workload, std::set<HostId> hosts, bool patient,
               std::int64_t from_ms) {
  Claim claim;
  claim.id = decision.state.next_claim;
  claim.kind = ClaimKind::kGang;
  claim.name = workload.spec.name;
  claim.tenant = workload.spec.tenant;
  claim.job = workload.id;
  claim.from_ms = from_ms;
  claim.until_ms = INT64_MAX;
  claim.patient = patient;
  claim.hosts = std::move(hosts);
  decision.emit(claim_event(decision.state, claim));
}

void give_up_claim(Decision& decision, const Workload& workload, std::string_view why) {
  const Claim* claim = decision.state.claims.of_job(workload.id);
  if (claim != nullptr) end_claim(decision, *claim, why);
}

Result<Json> reserve(Decision& decision, const Reserve& command) {
  const State& state = decision.state;
  if (command.name.empty() || command.name.size() > 63) return fail(Code::kInvalid, "a reservation needs a name");
  if (state.claims.find_named(command.name) != nullptr)
    return fail(Code::kConflict, "there is already a reservation {}; capstan unreserve {}", command.name, command.name);
  if (!state.tenants.find(command.tenant))
    return fail(Code::kNotFound, "there is no tenant {}; see: capstan tenants list", command.tenant);
  if (command.hosts < 1 || command.hosts > kReservedHostsMax)
    return fail(Code::kInvalid, "a reservation is of 1 to {} hosts, not {}", kReservedHostsMax, command.hosts);
  if (command.per_domain < 0 || command.per_domain > command.hosts)
    return fail(Code::kInvalid, "groups must be of 1 to {} hosts, not {}", command.hosts, command.per_domain);
  CAPSTAN_CHECK(check_window(state, decision, command.from_ms, command.until_ms));
  const scheduler::ClaimNeed need{.hosts = command.hosts,
                                  .per_domain = command.per_domain,
                                  .gpu_model = command.gpu_model,
                                  .host_class = command.host_class,
                                  .cluster = command.cluster,
                                  .from_ms = command.from_ms,
                                  .until_ms = command.until_ms};
  const auto chosen =
      scheduler::choose_claim_hosts(state.inventory, state.claims, state.running, need, decision.time_ms);
  if (!chosen) return std::unexpected(refused(state, command, chosen.error(), decision.time_ms));
  Claim claim;
  claim.hosts = chosen->hosts;
  claim.id = state.next_claim;
  claim.kind = ClaimKind::kReservation;
  claim.name = command.name;
  claim.tenant = command.tenant;
  claim.from_ms = command.from_ms;
  claim.until_ms = command.until_ms;
  decision.emit(claim_event(state, claim));
  Json answer = claim_to_json(state, claim);
  if (chosen->ready_ms < INT64_MAX) answer["ready_ms"] = chosen->ready_ms;
  answer["in_the_way"] = chosen->in_the_way.size();
  return answer;
}

Result<Json> unreserve(Decision& decision, const Unreserve& command) {
  const Claim* claim = decision.state.claims.find_named(command.name);
  for (const auto& [id, window] : decision.state.claims.all()) {
    if (claim == nullptr && window.kind == ClaimKind::kMaintenance && window.name == command.name) claim = &window;
  }
  if (claim == nullptr)
    return fail(Code::kNotFound, "there is no reservation or window {}; see: capstan reservations", command.name);
  end_claim(decision, *claim, "given back");
  return Json::object({{"name", command.name}, {"action", "removed"}});
}

Result<Json> maintain(Decision& decision, const Maintain& command) {
  const State& state = decision.state;
  CAPSTAN_CHECK(check_window(state, decision, command.from_ms, command.until_ms));
  CAPSTAN_TRY(const std::vector<HostId> hosts, named_hosts(state, command.names));
  Claim claim;
  claim.id = state.next_claim;
  claim.kind = ClaimKind::kMaintenance;
  claim.name = command.names.front();
  claim.from_ms = command.from_ms;
  claim.until_ms = command.until_ms;
  claim.hosts.insert(hosts.begin(), hosts.end());
  decision.emit(claim_event(state, claim));
  return claim_to_json(state, claim);
}

namespace {

// What the fleet's largest GPU hosts are whole by: a rank that fills one of their trays.
std::optional<scheduler::Shape> whole_tray(const State& state) {
  const auto& topology = state.inventory.topology();
  std::optional<scheduler::Shape> best;
  for (std::uint32_t i = 0; i < topology.domains(); ++i) {
    const fleet::Domain& domain = topology.domain(fleet::DomainId{i});
    if (domain.hosts < 2) continue;
    const fleet::HostClass& one = topology.host_class(domain.first);
    if (one.capacity.gpus > 0 && (!best || one.capacity.gpus > best->each.gpus))
      best = scheduler::Shape{{0, 0, one.capacity.gpus, 0}, "", one.name};
  }
  return best;
}

Json move_to_json(const State& state, const scheduler::Move& move) {
  const auto& topology = state.inventory.topology();
  const Workload& workload = *state.find(move.job);
  Json from = Json::array(), to = Json::array();
  for (const auto domain : move.from) from.push_back(topology.domain(domain).name);
  std::set<std::string> names;
  for (const auto& slice : move.to) names.insert(topology.domain(topology.domain_of(slice.host)).name);
  for (const auto& name : names) to.push_back(name);
  return Json::object({{"kind", workload::kind_name(workload.spec.kind)},
                       {"name", workload.spec.name},
                       {"ranks", move.whole ? static_cast<std::int64_t>(workload.job.ranks.size()) : move.ranks},
                       {"from", std::move(from)},
                       {"to", std::move(to)},
                       {"lost_gpu_seconds", move.cost / 1000}});
}

}  // namespace

Result<Json> defragment(Decision& decision, const Defragment& command) {
  State& state = decision.state;
  if (command.moves_max < 1 || command.moves_max > 10'000)
    return fail(Code::kInvalid, "moves must be 1 to 10000, not {}", command.moves_max);
  const auto shape = whole_tray(state);
  scheduler::Defragmentation proposal;  // without UltraServers there is nothing to make whole
  if (shape) {
    proposal = scheduler::propose(state.inventory, state.planner->placer(), state.running, decision.time_ms,
                                  {.shape = *shape, .moves_max = static_cast<std::size_t>(command.moves_max)});
  }
  Json moves = Json::array(), freed = Json::array();
  for (const auto& move : proposal.moves) moves.push_back(move_to_json(state, move));
  for (const auto domain : proposal.freed) freed.push_back(state.inventory.topology().domain(domain).name);
  Json answer = Json::object({{"dry_run", command.dry_run},
                              {"moves", std::move(moves)},
                              {"freed", std::move(freed)},
                              {"lost_gpu_seconds", proposal.cost / 1000}});
  if (command.dry_run) return answer;
  for (const auto& move : proposal.moves) {
    Workload& workload = *state.find(move.job);
    // A gang knows where it goes; single ranks are placed again like any other, best fit.
    if (move.whole && workload.job.in_attempt) claim_for(decision, workload, hosts_of(move.to), false, decision.time_ms);
    stop_on_host(decision, workload, move.host, move.ranks, StopWhy::kMove, "moves so that UltraServers become whole");
  }
  return answer;
}

void pass_boundaries(Decision& decision, std::int64_t looked_until_ms) {
  State& state = decision.state;
  if (state.claims.next_boundary_ms(looked_until_ms) > decision.time_ms) return;
  std::vector<std::int64_t> ids;
  for (const auto& [id, claim] : state.claims.all()) ids.push_back(id);
  for (const std::int64_t id : ids) {
    const Claim* claim = state.claims.find(id);
    if (claim == nullptr || claim->kind == ClaimKind::kGang) continue;
    if (claim->until_ms <= decision.time_ms) {
      end_claim(decision, *claim, "its time is over");
    } else if (claim->from_ms - scheduler::kClaimLeadMs <= decision.time_ms) {
      clear(decision, *claim);
      state.room_grew = true;  // who waits for the reservation may begin
    }
  }
}

}  // namespace capstan::controller

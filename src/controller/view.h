// View: what people and programs see of the state, as JSON for the API.
//
// Pure. Sizes are bounded: at most kRanksShownMax ranks of a workload are listed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "controller/state.h"

namespace capstan::controller {

inline constexpr std::size_t kRanksShownMax = 1'000;
inline constexpr std::size_t kExplainedMax = 20;  // of a list: so many that wait are explained in full, the rest by a word
inline constexpr std::size_t kHostsShownMax = 10'000;

struct WorkloadFilter {
  std::string kind;   // "job"; empty: all
  std::string state;  // "running"; empty: all
  std::string label;  // "key=value"; empty: all
};

// {"id","name","kind","state","reason","ready","wanted","attempt",…}; with `details` also "spec" and "ranks".
Json view(const State& state, const Workload& workload, bool details);
std::vector<Json> view_all(const State& state, const WorkloadFilter& filter);
Json view_hosts(const State& state);  // at most kHostsShownMax
Json view_host(const State& state, HostId host);
// {"name","state","text","decision":"running"|"not_now"|"never"|…}: why it is where it is, in words.
Json explain(const State& state, const Workload& workload);

// Replicas of services that the gateway serves.
struct ServedReplica {
  std::string id;     // "7-1-0"
  std::string model;  // the name that clients ask for
  std::string service;
  std::string address;
  std::int64_t port = 0;
  bool ready = false;
  std::int64_t hedge_after_ms = 0;  // as in workload::Spec
  bool http2 = false;
};
// A service behind the gateway, with or without replicas.
struct ServedService {
  std::string name;
  std::string model;
  std::int64_t weight = 100;
  std::int64_t wanted = 0;  // replicas
  std::int64_t ready = 0;
  std::optional<workload::AutoscaleSpec> autoscale;
  std::string why_not;  // no replica lives, and why; else empty
};
struct Served {
  std::vector<ServedReplica> replicas;
  std::vector<ServedService> services;
};
Served served(const State& state);

// Where the log of a rank is: the worker's address and the rank's id. The newest attempt if `attempt` is 0.
struct LogPlace {
  std::string logs_url;
  RankId id;
};
Result<LogPlace> log_place(const State& state, const Workload& workload, std::int64_t rank,
                           std::int64_t attempt);
// Where workers serve the results of a task array's sandboxes: of every host that has called. kConflict: it has none.
Result<std::vector<std::string>> results_places(const State& state, const Workload& workload);

}  // namespace capstan::controller

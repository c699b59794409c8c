#include "apps/up/replicas.h"

namespace capstan::apps {
namespace {

using controller::Workload;

bool is_served(const Workload& workload) {
  return workload.spec.kind == workload::Kind::kService && !workload.spec.model_name.empty() && !controller::has_ended(workload.state);
}

bool has_live_replica(const Workload& workload) {
  for (const auto& [index, replica] : workload.service.replicas) {
    if (replica.rank.live()) return true;
  }
  return false;
}

}  // namespace

std::vector<gateway::Replica> StateReplicas::replicas() const {
  std::vector<gateway::Replica> out;
  // A controller that is leaving has no replicas; the gateway then says so.
  (void)backend_.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) {
      if (!is_served(workload)) continue;
      for (const auto& [index, replica] : workload.service.replicas) {
        const controller::Rank& rank = replica.rank;
        if (!rank.live()) continue;
        const bool ready = rank.ready && rank.stopping == controller::StopWhy::kNone;
        out.push_back({protocol::RankId{id, replica.attempt, index}.text(), workload.spec.model_name,
                       fmt::format("http://{}:{}", rank.address.empty() ? "127.0.0.1" : rank.address, rank.port), ready});
      }
    }
  });
  return out;
}

std::vector<std::pair<std::string, std::string>> StateReplicas::waiting() const {
  std::vector<std::pair<std::string, std::string>> out;
  (void)backend_.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) {
      if (!is_served(workload) || has_live_replica(workload)) continue;
      const std::string why = workload.spec.replicas == 0 ? "it is scaled to 0 replicas" : workload.reason.empty() ? "its replicas are starting" : workload.reason;
      out.emplace_back(workload.spec.model_name, why);
    }
  });
  return out;
}

}  // namespace capstan::apps

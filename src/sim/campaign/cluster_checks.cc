// How it works: what every event and every host shows is held against what was promised.
#include <algorithm>

#include "sim/campaign/cluster.h"

namespace capstan::sim::campaign {

void Cluster::check_events(const controller::Outcome& outcome) {
  for (const Json& event : outcome.events) {
    const std::string type = event.get_string("type").value_or("");
    const std::string name = event.get_string("name").value_or("");
    if (type == "attempt_began") {
      std::int64_t ranks = 0;
      for (const Json& slice : event.find("slices")->items()) ranks += slice.find("ranks")->as_int();
      const std::int64_t helpers = controller_->state().find(name)->spec.helpers
                                       ? controller_->state().find(name)->spec.helpers->ranks
                                       : 0;
      if (ranks - helpers > ranks_of_[name] || ranks - helpers < least_of_[name])
        fail(fmt::format("gang {} began with {} of {} ranks", name, ranks, ranks_of_[name] + helpers));
      if (event.find("attempt")->as_int() > 1) hit("a gang began again");
      note(fmt::format("{} begins, attempt {}", name, event.find("attempt")->as_int()));
    } else if (type == "attempt_stopping") {
      hit("a gang was stopped: " + event.get_string("why").value_or(""));
    } else if (type == "attempt_ended" && event.get_string("next").value_or("") == "resume") {
      hit("a gang resumes");
    } else if (type == "claim_added") {
      hit(event.get_bool("patient").value_or(false) ? "room was kept for one that waits"
                                                    : "room was kept for one that displaces");
    } else if (type == "claim_removed") {
      hit("a claim ended");
    } else if (type == "host_health") {
      hit("a host became " + event.get_string("health").value_or(""));
    } else if (type == "host_condition" && event.get_string("condition").value_or("") == "quarantined") {
      hit("a host was quarantined");
    } else if (type == "replica_began" && event.find("attempt")->as_int() > 1) {
      hit("a replica began again");
    } else if (type == "workload_state") {
      const std::string state = event.get_string("state").value_or("");
      if (state != "succeeded" && state != "failed" && state != "cancelled") continue;
      note(name + " has " + state);
      if (state == "failed") fail(name + " failed although it may be restarted a thousand times");
    }
  }
  // Limits, by what runs.
  std::int64_t limited = 0;
  for (const auto& [id, workload] : controller_->state().workloads) {
    if (workload.spec.tenant != "limited") continue;
    for (std::size_t i = 0; i < workload.job.ranks.size(); ++i)
      limited += workload.job.ranks[i].live() ? workload.job.each(static_cast<std::int64_t>(i)).gpus : 0;
    for (const auto& [index, replica] : workload.service.replicas)
      limited += replica.rank.live() ? replica.held.gpus : 0;
  }
  if (limited > 8) fail(fmt::format("tenant limited holds {} GPUs, it may hold 8", limited));
}

// On each host: no GPU is in two hands (start_rank looks at the moment of a start; here is the whole).
void Cluster::check_hosts() {
  for (const Host& host : hosts_) {
    std::map<int, protocol::RankId> held;
    for (const auto& [id, rank] : host.ranks) {
      if (rank.phase == protocol::RankPhase::kExited) continue;
      for (const int gpu : rank.gpus) {
        if (!held.emplace(gpu, id).second) fail(fmt::format("GPU {} of {} is in two hands", gpu, host.name));
      }
    }
  }
}

// What was acknowledged is known for ever.
void Cluster::check_promises() {
  for (const Promise& promise : promised_) {
    const auto* workload = controller_->state().find(promise.name);
    if (workload == nullptr) return fail(promise.name + " was acknowledged and is unknown after a crash");
    if (promise.cancel && !workload->cancelling && !has_ended(workload->state))
      return fail("the cancelling of " + promise.name + " was acknowledged and is forgotten");
  }
}

bool Cluster::all_ended() const {
  if (controller_ == nullptr) return false;
  const auto& workloads = controller_->state().workloads;
  return std::all_of(workloads.begin(), workloads.end(),
                     [](const auto& entry) { return has_ended(entry.second.state); });
}

}  // namespace capstan::sim::campaign

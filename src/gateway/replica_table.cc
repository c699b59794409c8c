#include "gateway/replica_table.h"

#include <algorithm>

namespace capstan::gateway {

std::shared_ptr<ReplicaTable> ReplicaBoard::table_of(std::vector<Replica> all) {
  auto table = std::make_shared<ReplicaTable>();
  table->all = std::move(all);
  for (const Replica& replica : table->all) {
    auto& services = table->by_model[replica.model];
    auto found = std::ranges::find(services, replica.service, &ServiceReplicas::service);
    if (found == services.end()) {
      services.push_back({.service = replica.service, .weight = replica.weight, .replicas = {}, .states = {}, .loads = {}});
      found = std::prev(services.end());
    }
    auto& state = states_[replica.id];
    if (!state) state = std::make_shared<ReplicaState>();
    found->any_ready = found->any_ready || replica.ready;
    found->replicas.push_back(replica);
    found->states.push_back(state);
    found->loads.push_back({.id = replica.id});
  }
  // A replica of an earlier attempt never comes back under its id.
  std::erase_if(states_, [](const auto& entry) { return entry.second.use_count() == 1; });
  return table;
}

}  // namespace capstan::gateway

// The replicas of services as the gateway sees them, read from the controller's state.
#pragma once

#include "api/backend.h"
#include "gateway/gateway.h"

namespace capstan::apps {

class StateReplicas final : public gateway::ReplicaDirectory {
 public:
  explicit StateReplicas(api::Backend& backend) : backend_(backend) {}
  std::vector<gateway::Replica> replicas() const override;
  std::vector<std::pair<std::string, std::string>> waiting() const override;

 private:
  api::Backend& backend_;
};

}  // namespace capstan::apps

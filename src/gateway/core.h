// What the gateway's requests share: the replicas and their load, keys and limits, metrics. Private to gateway/.
//
// Threads: safe from any thread once the gateway is mounted.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "gateway/admission.h"
#include "gateway/gateway.h"
#include "gateway/load_board.h"
#include "http/client.h"

namespace capstan::gateway {

struct Core {
  Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayLimits& l);

  const ReplicaDirectory& directory;
  std::shared_ptr<prometheus::Registry> registry;  // shared with the metrics endpoint
  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Histogram>& first_byte_seconds;
  prometheus::Family<prometheus::Counter>& tokens;
  const GatewayLimits limits;
  std::unique_ptr<Authenticator> authenticator = open_authenticator();
  std::unique_ptr<Admission> admission = open_admission();
  std::atomic<int> under_way{0};
  LoadBoard board;
  http::Client client;
};

// The names of all models that are served or asked for, sorted.
std::vector<std::string> model_names(const ReplicaDirectory& directory, const std::vector<Replica>& replicas);
// 404, or 503 if it waits for its first replica.
ApiError unknown_model(const ReplicaDirectory& directory, const std::string& model,
                       const std::vector<Replica>& all);
// The client's own, if it is plain; else a new one.
std::string request_id_of(const http::Request& request);

}  // namespace capstan::gateway

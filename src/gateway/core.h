// What the gateway's requests share: the replicas and their load, keys and limits, metrics. Private to gateway/.
//
// Threads: of the event loop, but for authenticator, directory and under_way.
#pragma once

#include <atomic>
#include <boost/intrusive/list.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gateway/access_log.h"
#include "gateway/admission.h"
#include "gateway/gateway.h"
#include "gateway/kv_watch.h"
#include "gateway/metrics.h"
#include "gateway/replica_table.h"
#include "http/async_client.h"

namespace capstan::gateway {

// A request under way; Core knows all of them, to end them when the server leaves.
struct InFlight : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  virtual void shut_down() = 0;

 protected:
  ~InFlight() = default;
};

struct Core {
  Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayOptions& o);

  const ReplicaDirectory& directory;
  const GatewayOptions options;
  std::unique_ptr<Authenticator> authenticator = open_authenticator();
  std::unique_ptr<Admission> admission = open_admission();
  std::atomic<int> under_way{0};
  ServiceWatch watch;
  AccessLog access_log;

  std::atomic<http::EventLoop*> loop{nullptr};  // while the server runs
  std::unique_ptr<http::AsyncClient> client;
  std::unique_ptr<KvWatch> kv_watch;
  boost::intrusive::list<InFlight, boost::intrusive::constant_time_size<false>> in_flight;

  // Shared with requests that came while it was the latest.
  std::shared_ptr<ReplicaTable> replicas();
  // Counts a request's end.
  void count(const Settlement& settlement, bool stream);
  void start_on(http::EventLoop& on);
  void stop();  // ends all requests

 private:
  GatewayMetrics metrics_;
  ReplicaBoard board_;
  std::shared_ptr<ReplicaTable> replicas_;
  std::uint64_t replicas_version_ = 0;
  std::int64_t replicas_ms_ = 0;
};

// The names of all models that are served or asked for, and their aliases, sorted.
std::vector<std::string> model_names(const ReplicaDirectory& directory, const std::vector<Replica>& replicas);
// 404, or 503 if it waits for its first replica.
ApiError unknown_model(const ReplicaDirectory& directory, const std::string& model,
                       const std::vector<Replica>& all);
// The client's own, if it is plain; else a new one.
std::string request_id_of(const http::Request& request);

}  // namespace capstan::gateway

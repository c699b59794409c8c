// What the gateway's requests share: the replicas and their load, keys and limits, metrics. Private to gateway/.
//
// Threads: of the event loop, but for authenticator, directory and under_way.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <boost/intrusive/list.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gateway/access_log.h"
#include "gateway/admission.h"
#include "gateway/gateway.h"
#include "gateway/load_board.h"
#include "http/async_client.h"

namespace capstan::gateway {

// A request under way; Core knows all of them, to end them when the server leaves.
struct InFlight : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
  virtual void shut_down() = 0;

 protected:
  ~InFlight() = default;
};

// What the directory said, by model.
struct ReplicaTable {
  std::vector<Replica> all;
  std::map<std::string, std::vector<Replica>, std::less<>> by_model;
};

struct Core {
  Core(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayOptions& o);

  const ReplicaDirectory& directory;
  const GatewayOptions options;
  std::unique_ptr<Authenticator> authenticator = open_authenticator();
  std::unique_ptr<Admission> admission = open_admission();
  std::atomic<int> under_way{0};
  LoadBoard board;
  ServiceWatch watch;
  AccessLog access_log;

  std::atomic<http::EventLoop*> loop{nullptr};  // while the server runs
  std::unique_ptr<http::AsyncClient> client;
  boost::intrusive::list<InFlight, boost::intrusive::constant_time_size<false>> in_flight;

  // Shared with requests that came while it was the latest.
  std::shared_ptr<const ReplicaTable> replicas();
  // Counts a request's end.
  void count(const Settlement& settlement);
  void start_on(http::EventLoop& on);
  void stop();  // ends all requests

 private:
  struct Series {
    prometheus::Histogram* first_byte = nullptr;
    std::array<prometheus::Counter*, 4> tokens = {};
    std::map<int, prometheus::Counter*> by_status;
  };
  Series& series_of(std::string_view model);

  std::shared_ptr<prometheus::Registry> registry_;  // shared with the metrics endpoint
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& first_byte_seconds_;
  prometheus::Family<prometheus::Counter>& tokens_;
  std::map<std::string, Series, std::less<>> series_;
  std::shared_ptr<const ReplicaTable> replicas_;
  std::int64_t replicas_ms_ = 0;
};

// The names of all models that are served or asked for, sorted.
std::vector<std::string> model_names(const ReplicaDirectory& directory, const std::vector<Replica>& replicas);
// 404, or 503 if it waits for its first replica.
ApiError unknown_model(const ReplicaDirectory& directory, const std::string& model,
                       const std::vector<Replica>& all);
// The client's own, if it is plain; else a new one.
std::string request_id_of(const http::Request& request);

}  // namespace capstan::gateway

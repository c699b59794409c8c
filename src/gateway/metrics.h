// The gateway's metrics: its own, and OpenTelemetry's for generative AI, as Prometheus spells them (dots and units become
// underscores): gen_ai_server_request_duration_seconds, gen_ai_server_time_to_first_token_seconds,
// gen_ai_server_time_per_output_token_seconds, gen_ai_client_token_usage.
//
// Threads: of the event loop; the registry is read by the metrics endpoint. Bounds: only models that exist become a label, so
// that strangers cannot grow the metrics.  Cost: a look-up and some counters a request.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/admission.h"

namespace capstan::gateway {

class GatewayMetrics {
 public:
  explicit GatewayMetrics(std::shared_ptr<prometheus::Registry> registry);
  // A request's end.
  void count(const Settlement& settlement, bool stream);

 private:
  struct Series {
    prometheus::Histogram* first_byte = nullptr;
    std::array<prometheus::Counter*, 4> tokens = {};
    prometheus::Histogram* first_token = nullptr;
    prometheus::Histogram* per_output_token = nullptr;
    std::array<prometheus::Histogram*, 2> usage = {};  // input, output
    std::map<int, prometheus::Counter*> by_status;
    std::map<int, prometheus::Histogram*> duration;  // by the status of what failed; 0: did not fail
  };
  using Operation = const char*;
  Series& series_of(std::string_view model, Operation operation);
  prometheus::Histogram& duration_of(Series& series, std::string_view model, Operation operation, int status);

  std::shared_ptr<prometheus::Registry> registry_;  // shared with the metrics endpoint
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& first_byte_seconds_;
  prometheus::Family<prometheus::Counter>& tokens_;
  prometheus::Family<prometheus::Histogram>& duration_;
  prometheus::Family<prometheus::Histogram>& first_token_;
  prometheus::Family<prometheus::Histogram>& per_output_token_;
  prometheus::Family<prometheus::Histogram>& usage_;
  std::map<std::pair<std::string, Operation>, Series> series_;
};

}  // namespace capstan::gateway

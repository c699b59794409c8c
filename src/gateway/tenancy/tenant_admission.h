// TenantAdmission: whether a request may go to a replica, and when: key's models, limits, a row of usage, a place.
//
//   gateway.set_admission(std::make_unique<TenantAdmission>(*database, *tenants, *catalogue, *meter, replicas));
//
// In this order, each given back if a later one refuses: the key may use the model (403); limits have room for
// the estimate (429 rate_limit_exceeded with the moment to try again, or insufficient_quota for money); the ledger
// takes the request (503); the model's replicas have room, or it waits in the fair queue (429 when that is full).
// settle() replaces the estimate by what was used, in limits, ledger and queue.
// Threads: admit from any thread, without blocking. A thread of its own looks every 100 ms for changed limits and
// for replicas that came or went.  Cost: about 1 µs beside the queue.
// A model without a ready replica has no queue: the gateway says what is wrong with it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "gateway/admission.h"
#include "gateway/metering/meter.h"
#include "gateway/queue/fair_queue.h"
#include "store/catalogue.h"
#include "store/tenants.h"

namespace capstan::gateway {

struct AdmissionOptions {
  int requests_per_replica = 32;  // as many as our engine decodes together; a model's own number goes before
  QueueOptions queue = {};
  std::function<std::int64_t()> now_ms = {};  // milliseconds since 1970; empty: the system's
};

class TenantAdmission final : public Admission {
 public:
  // Replicas that are ready, by model.
  using Ready = std::function<std::map<std::string, int, std::less<>>()>;
  // Everything given outlives it.
  TenantAdmission(store::Database& database, store::Tenants& tenants, store::Catalogue& catalogue, Meter& meter,
                  Ready ready, const AdmissionOptions& options = {});
  ~TenantAdmission() override;
  Decision admit(const CallerPtr& caller, const CostEstimate& cost, std::function<void(Verdict)> later) override;

  // What the thread does every 100 ms, now.
  void refresh();
  // (used, reserved) of a limit in its window.
  std::pair<std::int64_t, std::int64_t> state_of_limit(std::int64_t rule);

 private:
  struct Desk;
  class Pass;
  class Place;
  std::shared_ptr<Desk> desk_;  // shared with the permits under way
  std::thread thread_;
};

}  // namespace capstan::gateway

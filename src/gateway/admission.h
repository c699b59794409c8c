// Who asks, and whether they may: what the pipeline needs of keys, limits, budgets and queues.
//
//   gateway.set_authenticator(…);  gateway.set_admission(…);
//
// For each request, in this order: Authenticator::authenticate, Exchange::begin (says what it may cost),
// Admission::admit (a permit, a refusal, or a place in a queue), the replica, Permit::settle. A permit that is
// destroyed without settle() gives everything back.
// Threads: authenticate and admit are called on an event loop and never block (a key that is not in memory is no
// key); several loops may call at once. One permit's methods are called by one thread at a time.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/api_error.h"
#include "gateway/usage.h"
#include "http/message.h"

namespace capstan::gateway {

enum class ServiceTier { kPriority, kDefault, kFlex, kBatch };

// One per key, shared by its requests.
struct Caller {
  std::string organisation = "default";
  std::string project = "default";
  std::string key_id = {};  // empty: open access on the loopback, no key
  ServiceTier tier = ServiceTier::kDefault;
  std::vector<std::string> scopes = {};  // empty: everything
  std::vector<std::string> models = {};  // that it may use; empty: all
  // The store's numbers of the same, for counting; no key has number 0.
  std::int64_t organisation_number = 1, project_number = 1, key_number = 0;
  std::int64_t weight = 1;  // of the project, where replicas are saturated
};
using CallerPtr = std::shared_ptr<const Caller>;  // shared by a key's requests under way

class Authenticator {
 public:
  virtual ~Authenticator() = default;
  // Headers, raw target and whole body are there; 401 or 403 if refused.
  virtual std::expected<CallerPtr, ApiError> authenticate(const http::Request& request) = 0;
};

// What a request is about to cost at most, and where it stands in the queue.
struct CostEstimate {
  std::string_view model;  // as long as admit() runs
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens_max = 0;
  ServiceTier tier = ServiceTier::kDefault;
};

struct Settlement {
  Usage usage;
  int status = 0;                // what the client got; 499: it left before the end
  std::string_view model = {};
  std::string_view path = {};
  std::string_view request_id = {};
  std::string_view replica = {};  // empty: none was reached
  std::int64_t queued_ms = 0;     // between admit and permit
  std::int64_t first_byte_ms = 0;  // since arrival; 0: none
  std::int64_t total_ms = 0;
};

class Permit {
 public:
  virtual ~Permit() = default;
  // Rate-limit headers of the answer.
  virtual void add_headers(http::Headers& headers) { (void)headers; }
  // Of a stream under way: completion tokens so far (events, as an estimate). Cheap, called per event.
  virtual void progress(std::int64_t completion_tokens) { (void)completion_tokens; }
  // Once, at the end, whatever the end was.
  virtual void settle(const Settlement& settlement) = 0;
};

// A place in a queue; destroying it leaves the queue.
class Waiting {
 public:
  virtual ~Waiting() = default;
};

class Admission {
 public:
  virtual ~Admission() = default;
  using Verdict = std::expected<std::unique_ptr<Permit>, ApiError>;
  using Decision = std::variant<Verdict, std::unique_ptr<Waiting>>;
  // `later` is called only if the decision is Waiting: once, from any thread, and not after that Waiting is
  // destroyed (its destructor may wait for a call under way on another thread).
  virtual Decision admit(const CallerPtr& caller, const CostEstimate& cost, std::function<void(Verdict)> later) = 0;
};

// The defaults: everybody who reaches the port is "default" and admitted.
std::unique_ptr<Authenticator> open_authenticator();
std::unique_ptr<Admission> open_admission();

}  // namespace capstan::gateway

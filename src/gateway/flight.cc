// How: a flight is a small state machine on the event loop: begin, wait for the permit, one replica after another until
// one answers, then pieces as they come; its end settles, counts and writes the line. The client's leaving ends it
// at any point. When the client reads too slowly, the replica's connection is not read either. Where the service hedges, a
// second replica is asked when the first says nothing for a while; whose first byte comes first goes on, the other one is
// given up.
#include "gateway/flight.h"

#include <algorithm>
#include <optional>

#include "gateway/attempt.h"
#include "gateway/candidates.h"
#include "gateway/names_query.h"
#include "gateway/recycled.h"
#include "gateway/relay.h"
#include "gateway/request_peek.h"

namespace capstan::gateway {
namespace {

constexpr std::int64_t kCompletionTokensDefault = 256;  // where the request does not bound its answer
constexpr std::int64_t kTokensMax = 1 << 20;
constexpr int kReplicaSilenceMs = 600'000;
constexpr int kClientGone = 499;                    // in metrics and log only: nobody is there to read it
constexpr std::int64_t kLookAgainMs = 50;
constexpr std::size_t kUnsentHighBytes = 256u << 10;  // from here on the replica waits for the client
constexpr std::string_view kChat = "/v1/chat/completions";
constexpr std::string_view kVersion = "/v1";

class Flight final : public InFlight, public AttemptSink, public std::enable_shared_from_this<Flight> {
 public:
  Flight(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request, CallerPtr caller,
         const http::ResponseWriterPtr& writer)
      : core_(std::move(core)),
        exchange_(std::move(exchange)),
        request_(std::move(request)),
        caller_(std::move(caller)),
        relay_(*exchange_, writer, request_id_of(request_)) {
    fits_ = ++core_->under_way <= core_->options.requests_max;
  }
  ~Flight() { --core_->under_way; }

  // What may happen on any thread. False if the request is answered.
  bool prepare();
  // On the loop, from here on.
  void take_off();
  void end();
  void shut_down() override;

  void on_head(Attempt& attempt, http::Response& head) override;
  void on_piece(Attempt& attempt, std::string_view piece) override;
  void on_end(Attempt& attempt, Result<void> result) override;

 private:
  using Outcome = Attempt::Outcome;
  bool authenticate();
  bool begin();
  bool find_replicas();
  ServiceReplicas& one_service(std::vector<ServiceReplicas>& services) const;
  bool await_replica();
  void look_again();
  void admit();
  void decided(Admission::Verdict verdict);
  void compose();
  void compose_for(const Replica& replica);
  void name_blocks();
  Candidates::Prompt prompt() const;
  bool start_on(std::optional<Attempt>& attempt);
  void try_next();
  void hedge();
  bool is_main(const Attempt& attempt) const { return main_ && &attempt == &*main_; }
  std::optional<Attempt>& other_than(const Attempt& attempt) { return is_main(attempt) ? hedge_ : main_; }
  void drop(std::optional<Attempt>& attempt, Outcome outcome);
  void drop(Attempt& attempt, Outcome outcome) { drop(is_main(attempt) ? main_ : hedge_, outcome); }
  void drop_all() {
    names_query_.reset();
    drop(main_, Outcome::kNothing);
    drop(hedge_, Outcome::kNothing);
  }
  void wins(Attempt& attempt);
  void next_or_refuse(Error why);
  void hold_back(Attempt& attempt);
  void client_left();
  ApiError unreachable(const Error& last) const;

  std::shared_ptr<Core> core_;          // shared by all flights and the gateway
  std::shared_ptr<Exchange> exchange_;  // shared only for std::function's sake
  http::Request request_;
  CallerPtr caller_;
  Relay relay_;
  UpstreamCall call_;
  http::Request upstream_;  // its head
  Candidates candidates_;
  std::string service_;
  std::unique_ptr<http::EventLoop::Timer> timer_;  // looks again for a first replica, then hedges
  std::int64_t cold_since_ms_ = 0;
  Error last_{Code::kUnavailable, "", {}};
  std::string model_;              // once it is known to exist
  const Replica* replica_ = nullptr;  // the last one tried
  std::int64_t answer_tokens_ = 0;
  std::int64_t queued_ms_ = 0;
  std::unique_ptr<Waiting> waiting_;
  std::unique_ptr<Permit> permit_;
  std::unique_ptr<NamesQuery> names_query_;
  std::optional<Attempt> main_, hedge_;
  std::shared_ptr<Flight> self_;  // until the end
  bool fits_ = true;
  bool cold_ = false;   // waits for a first replica
  bool timed_ = false;  // its first token is counted
  bool looked_anew_ = false;
};

bool Flight::prepare() {
  if (fits_) return authenticate() && begin();
  relay_.refuse({.status = 503,
                 .message = fmt::format("{} requests are under way, which is the limit; try again in a moment",
                                        core_->options.requests_max),
                 .type = "server_error",
                 .code = "overloaded"});
  return false;
}

bool Flight::authenticate() {
  if (caller_) return true;
  auto caller = core_->authenticator->authenticate(request_);
  if (!caller) return relay_.refuse(caller.error()), false;
  caller_ = *std::move(caller);
  return true;
}

bool Flight::begin() {
  auto call = exchange_->begin(request_, *caller_);
  if (!call) return relay_.respond(std::move(call.error())), false;
  call_ = *std::move(call);
  // An alias: the replica knows the model by its own name.
  if (std::string name = core_->directory.resolve(call_.model, relay_.request_id()); name != call_.model) {
    replace_model(call_.body, name);
    call_.model = std::move(name);
  }
  if (call_.prompt_tokens == 0) call_.prompt_tokens = static_cast<std::int64_t>(call_.body.size() / 4) + 1;
  if (call_.completion_tokens_max == 0) call_.completion_tokens_max = kCompletionTokensDefault;
  answer_tokens_ = std::min(call_.completion_tokens_max, kTokensMax);
  return true;
}

void Flight::take_off() {
  self_ = shared_from_this();
  core_->in_flight.push_back(*this);
  const bool known = find_replicas();
  if (!candidates_.any_ready()) cold_ = await_replica();
  if (!known && !cold_) {
    relay_.refuse(unknown_model(core_->directory, call_.model, core_->replicas()->all));
    return end();
  }
  if (!service_.empty()) core_->watch.arrived(service_, steady_now_ms(), cold_);
  relay_.writer()->on_client_gone([weak = weak_from_this()] {
    if (const auto flight = weak.lock()) flight->client_left();
  });
  if (self_ && !cold_) admit();
}

bool Flight::find_replicas() {
  auto table = core_->replicas();
  const auto found = table->by_model.find(call_.model);
  if (found == table->by_model.end()) return false;
  candidates_.set(table, one_service(found->second));
  service_ = candidates_.service();
  model_ = call_.model;
  return true;
}

// Of several services that serve the model, the one that this request falls to by weight; those without a ready
// replica are passed over.
ServiceReplicas& Flight::one_service(std::vector<ServiceReplicas>& services) const {
  if (services.size() == 1) return services.front();
  std::vector<routing::WeightedService> ready;
  for (const ServiceReplicas& one : services) {
    if (one.any_ready) ready.push_back({one.service, one.weight});
  }
  const auto chosen = routing::choose_service(ready, routing::hash_text(relay_.request_id()));
  const auto wanted = [&](const ServiceReplicas& one) { return chosen ? one.service == ready[*chosen].id : one.any_ready; };
  const auto found = std::ranges::find_if(services, wanted);
  return found == services.end() ? services.front() : *found;
}

// Scale from zero: looks again and again until the service that was asked for a replica has one. False if none does so.
bool Flight::await_replica() {
  std::string starter = core_->directory.starter(call_.model);
  if (starter.empty()) return false;
  service_ = std::move(starter);
  model_ = call_.model;
  cold_since_ms_ = steady_now_ms();
  timer_ = std::make_unique<http::EventLoop::Timer>(*core_->loop.load(), [weak = weak_from_this()] {
    // Not from within the timer, which may go with the flight.
    if (const auto flight = weak.lock()) flight->core_->loop.load()->post([flight] { flight->look_again(); });
  });
  timer_->arm(kLookAgainMs);
  return true;
}

void Flight::look_again() {
  if (!self_) return;
  const std::string awaited = service_;
  if (find_replicas() && candidates_.any_ready()) {
    core_->watch.found_replica(awaited);
    service_ = awaited;  // whose counts this request is in
    cold_ = false;
    queued_ms_ = steady_now_ms() - cold_since_ms_;
    return admit();
  }
  service_ = awaited;
  if (steady_now_ms() - cold_since_ms_ < core_->options.cold_start_timeout_ms) return timer_->arm(kLookAgainMs);
  relay_.refuse({.status = 503,
                 .message = fmt::format("model '{}' had no replica within {} s", call_.model,
                                        core_->options.cold_start_timeout_ms / 1'000),
                 .type = "server_error",
                 .code = "model_not_ready"});
  end();
}

void Flight::admit() {
  const CostEstimate cost{call_.model, call_.prompt_tokens, call_.completion_tokens_max, call_.tier};
  auto decision = core_->admission->admit(
      caller_, cost, [weak = weak_from_this(), loop = core_->loop.load()](Admission::Verdict late) {
        auto verdict = std::make_shared<Admission::Verdict>(std::move(late));  // shared: std::function copies
        loop->post([weak, verdict] {
          const auto flight = weak.lock();
          if (!flight || !flight->self_) return;
          flight->queued_ms_ = steady_now_ms() - flight->relay_.started_ms();
          flight->decided(std::move(*verdict));
        });
      });
  if (auto* verdict = std::get_if<Admission::Verdict>(&decision)) return decided(std::move(*verdict));
  waiting_ = std::get<std::unique_ptr<Waiting>>(std::move(decision));
}

void Flight::decided(Admission::Verdict verdict) {
  waiting_.reset();
  if (!verdict) {
    relay_.refuse(verdict.error());
    return end();
  }
  permit_ = *std::move(verdict);
  relay_.set_permit(permit_.get());
  compose();
  name_blocks();
}

void Flight::compose() {
  upstream_.method = "POST";
  upstream_.headers.add("content-type", "application/json");
  const http::Headers trace = trace_of(request_);
  for (const auto& [name, value] : trace.all()) upstream_.headers.add(name, value);
  upstream_.headers.add("x-request-id", relay_.request_id());
}

// What our own servers are told of who asks; what the client says of itself there never reaches them.
void Flight::compose_for(const Replica& replica) {
  upstream_.target = replica.base_path.empty() ? call_.target : replica.base_path + call_.target.substr(kVersion.size());
  if (replica.external) {
    if (!replica.key.empty()) upstream_.headers.set("authorization", "Bearer " + replica.key);
    return;
  }
  upstream_.headers.set("x-capstan-tenant", caller_->organisation + "/" + caller_->project);
  const auto tier = static_cast<int>(std::max(call_.tier == ServiceTier::kDefault ? caller_->tier : call_.tier, caller_->tier));
  upstream_.headers.set("x-capstan-priority", std::to_string(static_cast<int>(ServiceTier::kDefault) - tier));
}

// Where several replicas report which blocks they have, one of them is asked which blocks the prompt is made of.
void Flight::name_blocks() {
  if (call_.target != kChat) return try_next();
  const auto namer = candidates_.namer(call_.body.size(), steady_now_ms());
  if (!namer) return try_next();
  names_query_ = std::make_unique<NamesQuery>(*core_->client, candidates_.replica(*namer).url, call_.body,
                                              [this](std::vector<std::uint64_t> names) {
                                                const auto self = shared_from_this();
                                                names_query_.reset();
                                                candidates_.set_names(std::move(names));
                                                try_next();
                                              });
}

Candidates::Prompt Flight::prompt() const {
  return {call_.body, call_.prompt_tokens, routing::hash_text(relay_.request_id()), call_.affinity_key};
}

bool Flight::start_on(std::optional<Attempt>& attempt) {
  const auto chosen = candidates_.choose(prompt(), steady_now_ms());
  if (!chosen) return false;
  replica_ = &candidates_.replica(*chosen);
  candidates_.mark_tried(*chosen);
  const bool alone = core_->options.lone_over_http1 && candidates_.state(*chosen)->tokens == 0;
  const std::int64_t uncached = std::max<std::int64_t>(call_.prompt_tokens - candidates_.cached_tokens(*chosen), 1);
  attempt.emplace(*this, *chosen, candidates_.state(*chosen), uncached, answer_tokens_, steady_now_ms());
  candidates_.note_sent(*chosen);
  compose_for(*replica_);
  attempt->start(*core_->client, replica_->url, upstream_, call_.body,
                 {.silence_timeout_ms = kReplicaSilenceMs, .http2 = replica_->http2 && !alone});
  return true;
}

void Flight::try_next() {
  if (!start_on(main_)) {
    relay_.refuse(unreachable(last_));
    return end();
  }
  if (replica_->hedge_after_ms == 0 || !candidates_.another(steady_now_ms())) return;
  timer_ = std::make_unique<http::EventLoop::Timer>(*core_->loop.load(), [weak = weak_from_this()] {
    if (const auto flight = weak.lock()) flight->core_->loop.load()->post([flight] { flight->hedge(); });
  });
  timer_->arm(replica_->hedge_after_ms);
}

// The first replica has said nothing for a while: another one is asked, too.
void Flight::hedge() {
  if (!self_ || !main_ || hedge_ || relay_.first_byte_ms() != 0 || main_->head_seen) return;
  (void)start_on(hedge_);
}

void Flight::drop(std::optional<Attempt>& attempt, Outcome outcome) {
  if (!attempt) return;
  attempt->tell(outcome, steady_now_ms());
  attempt.reset();
}

// Its first byte came first.
void Flight::wins(Attempt& attempt) {
  drop(other_than(attempt), Outcome::kNothing);
  replica_ = &candidates_.replica(attempt.replica());
  if (attempt.held_head) relay_.on_head(*std::exchange(attempt.held_head, std::nullopt));
}

void Flight::next_or_refuse(Error why) {
  last_ = std::move(why);
  if (main_ || hedge_) {  // the other one is still under way
    std::optional<Attempt>& left = main_ ? main_ : hedge_;
    replica_ = &candidates_.replica(left->replica());
    if (left->held_head) relay_.on_head(*std::exchange(left->held_head, std::nullopt));
    return;
  }
  if (!candidates_.another(steady_now_ms()) && !std::exchange(looked_anew_, true)) {
    // All that there were may have been replaced meanwhile.
    const std::string counted = service_;
    find_replicas();
    service_ = counted;
  }
  if (candidates_.another(steady_now_ms())) return try_next();
  relay_.refuse(unreachable(last_));
  end();
}

void Flight::on_head(Attempt& attempt, http::Response& head) {
  const auto self = shared_from_this();
  const bool alone = !other_than(attempt);
  attempt.head_seen = true;
  if (Relay::is_busy(head.status) && (!alone || candidates_.another(steady_now_ms()))) {
    const std::string& id = candidates_.replica(attempt.replica()).id;
    // Full is told by its load; who answers 503 is loading or leaving.
    const Outcome outcome = head.status == 503   ? Outcome::kHardFailure
                            : head.status == 502 ? Outcome::kSoftFailure
                                                 : Outcome::kNothing;
    Error why{Code::kUnavailable, fmt::format("{} answered {}", id, head.status), {}};
    drop(attempt, outcome);
    return next_or_refuse(std::move(why));
  }
  if (alone) return relay_.on_head(head);
  attempt.held_head = std::move(head);
}

void Flight::on_piece(Attempt& attempt, std::string_view piece) {
  const auto self = shared_from_this();
  if (other_than(attempt)) wins(attempt);
  if (relay_.first_byte_ms() == 0) attempt.prompt_is_done();
  if (!relay_.on_piece(piece)) {
    if (!self_) return;
    drop(attempt, relay_.broken().empty() ? Outcome::kNothing : Outcome::kSoftFailure);
    if (!relay_.broken().empty()) relay_.break_off(relay_.broken());
    return end();
  }
  if (!timed_ && relay_.streaming() && relay_.first_byte_ms() != 0) {
    timed_ = true;
    if (!service_.empty())
      core_->watch.first_token(service_, steady_now_ms(), relay_.first_byte_ms() - relay_.started_ms());
  }
  if (relay_.writer()->unsent_bytes() > kUnsentHighBytes) hold_back(attempt);
}

void Flight::hold_back(Attempt& attempt) {
  attempt.call()->pause();
  relay_.writer()->when_sent([weak = weak_from_this()] {
    const auto flight = weak.lock();
    if (!flight) return;
    if (flight->main_) flight->main_->call()->resume();
    if (flight->hedge_) flight->hedge_->call()->resume();
  });
}

void Flight::on_end(Attempt& attempt, Result<void> result) {
  const auto self = shared_from_this();
  if (result) {
    if (other_than(attempt)) wins(attempt);
    drop(attempt, relay_.replica_status() >= 500 ? Outcome::kSoftFailure : Outcome::kGood);
    relay_.on_end();
    return end();
  }
  if (relay_.first_byte_ms() != 0) {
    drop(attempt, Outcome::kSoftFailure);
    relay_.break_off(result.error().message);
    return end();
  }
  drop(attempt, Outcome::kHardFailure);
  next_or_refuse(std::move(result.error()));
}

void Flight::client_left() {
  if (!self_) return;
  drop_all();
  end();
}

void Flight::shut_down() {
  const auto self = shared_from_this();
  drop_all();
  if (relay_.first_byte_ms() != 0 && !relay_.client_gone()) {
    relay_.break_off("the server is shutting down");
  } else if (!relay_.client_gone()) {
    relay_.refuse(unreachable({Code::kCancelled, "", {}}));
  }
  end();
}

ApiError Flight::unreachable(const Error& last) const {
  std::string message;
  if (last.code == Code::kCancelled) {
    message = "the server is shutting down";
  } else if (!last.message.empty()) {
    message = fmt::format("no replica of '{}' can be reached: {}", call_.model, last.message);
  } else if (candidates_.any_ready()) {
    message =
        fmt::format("no replica of '{}' could be reached a moment ago; try again in a moment", call_.model);
  } else {
    message = fmt::format("model '{}' is still loading; try again in a moment", call_.model);
  }
  return {.status = 503, .message = std::move(message), .type = "server_error", .code = "model_not_ready"};
}

// Settles, counts and writes the line; the flight is over.
void Flight::end() {
  const auto keep = std::move(self_);
  self_ = nullptr;
  if (is_linked()) unlink();
  waiting_.reset();
  drop_all();
  const bool gone = relay_.client_gone();
  Settlement settlement{.usage = relay_.usage(call_.prompt_tokens),
                        .status = gone ? kClientGone : relay_.status(),
                        .model = model_,
                        .path = request_.path,
                        .request_id = relay_.request_id(),
                        .replica = replica_ != nullptr ? std::string_view(replica_->id) : std::string_view(),
                        .queued_ms = queued_ms_,
                        .total_ms = steady_now_ms() - relay_.started_ms()};
  if (relay_.first_byte_ms() > 0)
    settlement.first_byte_ms = std::max<std::int64_t>(relay_.first_byte_ms() - relay_.started_ms(), 1);
  if (!service_.empty()) {
    const std::int64_t further = settlement.usage.completion_tokens - 1;
    const std::int64_t tpot_ms = timed_ && further > 0 ? (settlement.total_ms - settlement.first_byte_ms) / further : -1;
    core_->watch.left(service_, steady_now_ms(), cold_, tpot_ms);
  }
  relay_.set_permit(nullptr);
  if (permit_) permit_->settle(settlement);
  permit_.reset();
  core_->count(settlement, relay_.streaming());
  core_->access_log.write(settlement, caller_.get(), relay_.streaming(), request_.headers.get("traceparent"));
}

}  // namespace

void fly(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request, CallerPtr caller,
         const http::ResponseWriterPtr& writer) {
  const auto flight = std::allocate_shared<Flight>(Recycled<Flight>(), std::move(core), std::move(exchange),
                                                   std::move(request), std::move(caller), writer);
  if (!flight->prepare()) return flight->end();
  flight->take_off();
}

void fly_after_blocking(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request,
                        CallerPtr caller, const http::ResponseWriterPtr& writer) {
  http::EventLoop* loop = core->loop;
  const auto flight = std::allocate_shared<Flight>(Recycled<Flight>(), std::move(core), std::move(exchange),
                                                   std::move(request), std::move(caller), writer);
  const bool goes_on = flight->prepare();
  if (loop == nullptr) return;  // the server has left; so has the client
  loop->post([flight, goes_on] { goes_on ? flight->take_off() : flight->end(); });
}

}  // namespace capstan::gateway

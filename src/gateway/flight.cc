// How: a flight is a small state machine on the event loop: begin, wait for the permit, one replica after another until
// one answers, then pieces as they come; its end settles, counts and writes the line. The client's leaving ends it
// at any point. When the client reads too slowly, the replica's connection is not read either.
#include "gateway/flight.h"

#include <algorithm>
#include <optional>

#include "gateway/relay.h"

namespace capstan::gateway {
namespace {

constexpr int kReplicasTriedMax = 3;
constexpr std::int64_t kCompletionTokensDefault = 256;  // where the request does not bound its answer
constexpr std::int64_t kTokensMax = 1 << 20;
constexpr std::size_t kAffinityBytes = 512;  // of the body: requests with the same beginning share a cache
constexpr int kReplicaSilenceMs = 600'000;
constexpr int kClientGone = 499;                    // in metrics and log only: nobody is there to read it
constexpr std::int64_t kLookAgainMs = 50;
constexpr std::size_t kUnsentHighBytes = 256u << 10;  // from here on the replica waits for the client

class Flight final : public InFlight, public http::CallSink, public std::enable_shared_from_this<Flight> {
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

  void on_head(http::Response& head) override;
  void on_piece(std::string_view piece) override;
  void on_end(Result<void> result) override;

 private:
  bool authenticate();
  bool begin();
  bool find_replicas();
  bool any_ready() const;
  const std::vector<Replica>* of_one_service(const std::vector<Replica>& all);
  bool await_replica();
  void look_again();
  void admit();
  void decided(Admission::Verdict verdict);
  void compose();
  std::optional<std::size_t> choose() const;
  void try_next();
  void next_or_refuse(Error why);
  void end_attempt();
  void client_left();
  ApiError unreachable(const Error& last) const;

  std::shared_ptr<Core> core_;          // shared by all flights and the gateway
  std::shared_ptr<Exchange> exchange_;  // shared only for std::function's sake
  http::Request request_;
  CallerPtr caller_;
  Relay relay_;
  UpstreamCall call_;
  http::Request upstream_;  // its head
  std::shared_ptr<const ReplicaTable> table_;
  const std::vector<Replica>* replicas_ = nullptr;  // in the table, or `mine_`
  std::vector<Replica> mine_;                       // of the service that this request falls to
  std::string service_;
  std::unique_ptr<http::EventLoop::Timer> look_again_;
  std::int64_t cold_since_ms_ = 0;
  bool cold_ = false;   // waits for a first replica
  bool timed_ = false;  // its first token is counted
  std::vector<std::string> tried_;
  Error last_{Code::kUnavailable, "", {}};
  std::string model_;              // once it is known to exist
  const Replica* replica_ = nullptr;
  std::int64_t load_ = 0;
  std::int64_t queued_ms_ = 0;
  std::unique_ptr<Waiting> waiting_;
  std::unique_ptr<Permit> permit_;
  std::unique_ptr<http::AsyncCall> under_way_;
  std::shared_ptr<Flight> self_;  // until the end
  bool fits_ = true;
  bool others_ = false;  // replicas are left to try
  bool loaded_ = false;  // the replica's load counts this request
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
  if (call_.prompt_tokens == 0) call_.prompt_tokens = static_cast<std::int64_t>(call_.body.size() / 4) + 1;
  if (call_.completion_tokens_max == 0) call_.completion_tokens_max = kCompletionTokensDefault;
  if (call_.affinity_key == 0)
    call_.affinity_key = routing::hash_text(std::string_view(call_.body).substr(0, kAffinityBytes));
  load_ = call_.prompt_tokens + std::min(call_.completion_tokens_max, kTokensMax);
  return true;
}

void Flight::take_off() {
  self_ = shared_from_this();
  core_->in_flight.push_back(*this);
  const bool known = find_replicas();
  if (!known || !any_ready()) cold_ = await_replica();
  if (!known && !cold_) {
    relay_.refuse(unknown_model(core_->directory, call_.model, table_->all));
    return end();
  }
  if (!service_.empty()) core_->watch.arrived(service_, steady_now_ms(), cold_);
  relay_.writer()->on_client_gone([weak = weak_from_this()] {
    if (const auto flight = weak.lock()) flight->client_left();
  });
  if (self_ && !cold_) admit();
}

bool Flight::find_replicas() {
  table_ = core_->replicas();
  const auto found = table_->by_model.find(call_.model);
  if (found == table_->by_model.end()) return false;
  replicas_ = of_one_service(found->second);
  service_ = replicas_->front().service;
  model_ = call_.model;
  return true;
}

bool Flight::any_ready() const { return std::ranges::any_of(*replicas_, &Replica::ready); }

// Of several services that serve the model, the one that this request falls to by weight; those without a ready
// replica are passed over.
const std::vector<Replica>* Flight::of_one_service(const std::vector<Replica>& all) {
  if (std::ranges::all_of(all, [&](const Replica& one) { return one.service == all.front().service; })) return &all;
  std::vector<routing::WeightedService> services;
  for (const Replica& one : all) {
    if (one.ready && std::ranges::find(services, one.service, &routing::WeightedService::id) == services.end())
      services.push_back({one.service, one.weight});
  }
  const auto chosen = routing::choose_service(services, routing::hash_text(relay_.request_id()));
  if (!chosen) return &all;
  mine_.clear();
  std::ranges::copy_if(all, std::back_inserter(mine_),
                       [&](const Replica& one) { return one.service == services[*chosen].id; });
  return &mine_;
}

// Scale from zero: looks again and again until the service that was asked for a replica has one. False if none does so.
bool Flight::await_replica() {
  std::string starter = core_->directory.starter(call_.model);
  if (starter.empty()) return false;
  service_ = std::move(starter);
  model_ = call_.model;
  cold_since_ms_ = steady_now_ms();
  look_again_ = std::make_unique<http::EventLoop::Timer>(*core_->loop.load(), [weak = weak_from_this()] {
    // Not from within the timer, which may go with the flight.
    if (const auto flight = weak.lock()) flight->core_->loop.load()->post([flight] { flight->look_again(); });
  });
  look_again_->arm(kLookAgainMs);
  return true;
}

void Flight::look_again() {
  if (!self_) return;
  const std::string awaited = service_;
  if (find_replicas() && any_ready()) {
    core_->watch.found_replica(awaited);
    service_ = awaited;  // whose counts this request is in
    cold_ = false;
    queued_ms_ = steady_now_ms() - cold_since_ms_;
    return admit();
  }
  service_ = awaited;
  if (steady_now_ms() - cold_since_ms_ < core_->options.cold_start_timeout_ms) return look_again_->arm(kLookAgainMs);
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
  try_next();
}

void Flight::compose() {
  upstream_.method = "POST";
  upstream_.target = std::move(call_.target);
  upstream_.headers.add("content-type", "application/json");
  for (const char* name : {"traceparent", "tracestate"}) {
    const std::string* value = request_.headers.find(name);
    if (value != nullptr && value->find_first_of("\r\n") == std::string::npos) upstream_.headers.add(name, *value);
  }
  upstream_.headers.add("x-request-id", relay_.request_id());
}

std::optional<std::size_t> Flight::choose() const {
  const routing::Request key{routing::hash_text(relay_.request_id()), call_.affinity_key};
  return routing::choose(core_->board.view(*replicas_, tried_, steady_now_ms()), key, {});
}

void Flight::try_next() {
  const auto chosen = choose();
  if (!chosen) {
    relay_.refuse(unreachable(last_));
    return end();
  }
  replica_ = &(*replicas_)[*chosen];
  tried_.push_back(replica_->id);
  others_ = replicas_->size() > tried_.size() && tried_.size() < kReplicasTriedMax && choose().has_value();
  core_->board.begin(replica_->id, load_);
  loaded_ = true;
  under_way_ = core_->client->start(replica_->url, upstream_, call_.body, {.silence_timeout_ms = kReplicaSilenceMs}, *this);
}

void Flight::end_attempt() {
  under_way_.reset();
  if (std::exchange(loaded_, false)) core_->board.end(replica_->id, load_);
}

void Flight::next_or_refuse(Error why) {
  last_ = std::move(why);
  if (others_) return try_next();
  relay_.refuse(unreachable(last_));
  end();
}

void Flight::on_head(http::Response& head) {
  const auto self = shared_from_this();
  if (relay_.on_head(head, others_)) return;
  end_attempt();
  // Full is told by its load; who answers 503 is loading or leaving.
  if (head.status == 503) core_->board.eject(replica_->id, steady_now_ms());
  next_or_refuse({Code::kUnavailable, fmt::format("{} answered {}", replica_->id, head.status), {}});
}

void Flight::on_piece(std::string_view piece) {
  const auto self = shared_from_this();
  if (!relay_.on_piece(piece)) {
    if (!self_) return;
    end_attempt();
    if (!relay_.broken().empty()) relay_.break_off(relay_.broken());
    return end();
  }
  if (!timed_ && relay_.streaming() && relay_.first_byte_ms() != 0) {
    timed_ = true;
    if (!service_.empty())
      core_->watch.first_token(service_, steady_now_ms(), relay_.first_byte_ms() - relay_.started_ms());
  }
  if (under_way_ && relay_.writer()->unsent_bytes() > kUnsentHighBytes) {
    under_way_->pause();
    relay_.writer()->when_sent([weak = weak_from_this()] {
      const auto flight = weak.lock();
      if (flight && flight->under_way_) flight->under_way_->resume();
    });
  }
}

void Flight::on_end(Result<void> result) {
  const auto self = shared_from_this();
  end_attempt();
  if (result) {
    relay_.on_end();
    return end();
  }
  if (relay_.first_byte_ms() != 0) {
    relay_.break_off(result.error().message);
    return end();
  }
  core_->board.eject(replica_->id, steady_now_ms());
  next_or_refuse(std::move(result.error()));
}

void Flight::client_left() {
  if (!self_) return;
  end_attempt();
  end();
}

void Flight::shut_down() {
  const auto self = shared_from_this();
  end_attempt();
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
  } else if (std::ranges::any_of(*replicas_, &Replica::ready)) {
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
  const bool gone = relay_.client_gone();
  Settlement settlement{.usage = relay_.usage(call_.prompt_tokens),
                        .status = gone ? kClientGone : relay_.status(),
                        .model = model_,
                        .path = request_.path,
                        .request_id = relay_.request_id(),
                        .replica = replica_ != nullptr ? std::string_view(replica_->id) : std::string_view(),
                        .queued_ms = queued_ms_,
                        .total_ms = steady_now_ms() - relay_.started_ms()};
  if (relay_.first_byte_ms() > 0) settlement.first_byte_ms = relay_.first_byte_ms() - relay_.started_ms();
  if (!service_.empty()) {
    const std::int64_t further = settlement.usage.completion_tokens - 1;
    const std::int64_t tpot_ms = timed_ && further > 0 ? (settlement.total_ms - settlement.first_byte_ms) / further : -1;
    core_->watch.left(service_, steady_now_ms(), cold_, tpot_ms);
  }
  relay_.set_permit(nullptr);
  if (permit_) permit_->settle(settlement);
  permit_.reset();
  core_->count(settlement);
  core_->access_log.write(settlement, caller_.get(), relay_.streaming(), request_.headers.get("traceparent"));
}

}  // namespace

void fly(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request, CallerPtr caller,
         const http::ResponseWriterPtr& writer) {
  const auto flight = std::make_shared<Flight>(std::move(core), std::move(exchange), std::move(request),
                                               std::move(caller), writer);
  if (!flight->prepare()) return flight->end();
  flight->take_off();
}

void fly_after_blocking(std::shared_ptr<Core> core, std::shared_ptr<Exchange> exchange, http::Request request,
                        CallerPtr caller, const http::ResponseWriterPtr& writer) {
  http::EventLoop* loop = core->loop;
  const auto flight = std::make_shared<Flight>(std::move(core), std::move(exchange), std::move(request),
                                               std::move(caller), writer);
  const bool goes_on = flight->prepare();
  if (loop == nullptr) return;  // the server has left; so has the client
  loop->post([flight, goes_on] { goes_on ? flight->take_off() : flight->end(); });
}

}  // namespace capstan::gateway

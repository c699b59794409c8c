#include "gateway/flight.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "gateway/relay.h"
#include "http/cancel_when_gone.h"

namespace capstan::gateway {
namespace {

constexpr int kReplicasTriedMax = 3;
constexpr std::int64_t kCompletionTokensDefault = 256;  // where the request does not bound its answer
constexpr std::int64_t kTokensMax = 1 << 20;
constexpr std::size_t kAffinityBytes = 512;  // of the body: requests with the same beginning share a cache
constexpr int kReplicaSilenceMs = 600'000;
constexpr int kClientGone = 499;  // in metrics and log only: nobody is there to read it

class Flight {
 public:
  Flight(Core& core, Exchange& exchange, http::Request request, CallerPtr caller,
         const http::ResponseWriterPtr& writer)
      : core_(core),
        exchange_(exchange),
        request_(std::move(request)),
        caller_(std::move(caller)),
        relay_(exchange, writer, request_id_of(request_)) {}

  void run() {
    if (++core_.under_way > core_.limits.requests_max) {
      relay_.refuse({.status = 503,
                     .message = fmt::format("{} requests are under way, which is the limit; try again in a moment",
                                            core_.limits.requests_max),
                     .type = "server_error",
                     .code = "overloaded"});
    } else if (authenticate() && begin() && find_replicas() && admit()) {
      fly();
    }
    end();
    --core_.under_way;
  }

 private:
  bool authenticate() {
    if (caller_) return true;
    auto caller = core_.authenticator->authenticate(request_);
    if (!caller) return relay_.refuse(caller.error()), false;
    caller_ = *std::move(caller);
    return true;
  }

  bool begin() {
    auto call = exchange_.begin(request_, *caller_);
    if (!call) return relay_.respond(std::move(call.error())), false;
    call_ = *std::move(call);
    if (call_.prompt_tokens == 0) call_.prompt_tokens = static_cast<std::int64_t>(call_.body.size() / 4) + 1;
    if (call_.completion_tokens_max == 0) call_.completion_tokens_max = kCompletionTokensDefault;
    if (call_.affinity_key == 0)
      call_.affinity_key = routing::hash_text(std::string_view(call_.body).substr(0, kAffinityBytes));
    load_ = call_.prompt_tokens + std::min(call_.completion_tokens_max, kTokensMax);
    return true;
  }

  bool find_replicas() {
    replicas_ = core_.directory.replicas();
    std::vector<Replica> all = replicas_;
    std::erase_if(replicas_, [&](const Replica& replica) { return replica.model != call_.model; });
    if (replicas_.empty()) return relay_.refuse(unknown_model(core_.directory, call_.model, all)), false;
    model_ = call_.model;
    return true;
  }

  bool admit() {
    const CostEstimate cost{call_.model, call_.prompt_tokens, call_.completion_tokens_max, call_.tier};
    std::mutex mutex;
    std::condition_variable decided;
    std::optional<Admission::Verdict> verdict;
    auto decision = core_.admission->admit(caller_, cost, [&](Admission::Verdict late) {
      const std::scoped_lock lock(mutex);
      verdict = std::move(late);
      decided.notify_one();
    });
    if (auto* at_once = std::get_if<Admission::Verdict>(&decision)) {
      verdict = std::move(*at_once);
    } else {
      std::unique_lock lock(mutex);
      while (!verdict && !relay_.client_gone()) decided.wait_for(lock, std::chrono::milliseconds(50));
      lock.unlock();
      decision = Admission::Decision(std::unique_ptr<Waiting>());
      queued_ms_ = steady_now_ms() - relay_.started_ms();
    }
    if (!verdict) return false;
    if (!*verdict) return relay_.refuse(verdict->error()), false;
    permit_ = **std::move(verdict);
    relay_.set_permit(permit_.get());
    return true;
  }

  http::Request upstream() const {
    http::Request out{.method = "POST", .target = call_.target, .body = call_.body};
    out.headers.set("content-type", "application/json");
    for (const char* name : {"traceparent", "tracestate"}) {
      if (const std::string* value = request_.headers.find(name)) out.headers.set(name, *value);
    }
    out.headers.set("x-request-id", relay_.request_id());
    return out;
  }

  void fly() {
    http::Cancellation cancellation;
    const http::CancelWhenGone guard(*relay_.writer(), cancellation);
    const Error last = dispatch(cancellation);
    if (!relay_.begun() && !relay_.client_gone()) relay_.refuse(unreachable(last));
  }

  // Tries replicas until one answers; the error of the last one that could not be reached.
  Error dispatch(http::Cancellation& cancellation) {
    const routing::Request key{routing::hash_text(relay_.request_id()), call_.affinity_key};
    const http::Request request = upstream();
    std::vector<std::string> tried;
    Error last{Code::kUnavailable, "", {}};
    while (const auto chosen = routing::choose(core_.board.view(replicas_, tried, steady_now_ms()), key, {})) {
      const Replica& replica = replicas_[*chosen];
      tried.push_back(replica.id);
      replica_ = replica.id;
      const bool others =
          tried.size() < kReplicasTriedMax &&
          routing::choose(core_.board.view(replicas_, tried, steady_now_ms()), key, {}).has_value();
      core_.board.begin(replica.id, load_);
      const auto result = core_.client.stream(
          replica.url, request, {.timeout_ms = kReplicaSilenceMs, .cancellation = &cancellation},
          [&](const http::Response& head) { return relay_.on_head(head, others); },
          [&](std::string_view piece) { return relay_.on_piece(piece); });
      core_.board.end(replica.id, load_);
      if (relay_.turned_away() != 0) {
        // Full is told by its load; who answers 503 is loading or leaving.
        if (relay_.turned_away() == 503) core_.board.eject(replica.id, steady_now_ms());
        last = {Code::kUnavailable, fmt::format("{} answered {}", replica.id, relay_.turned_away()), {}};
        continue;
      }
      if (result) return relay_.on_end(), last;
      last = result.error();
      if (last.code == Code::kCancelled && relay_.broken().empty()) return last;
      if (relay_.first_byte_ms() != 0) {
        relay_.break_off(relay_.broken().empty() ? last.message : relay_.broken());
        return last;
      }
      core_.board.eject(replica.id, steady_now_ms());
      if (!others) break;
    }
    return last;
  }

  ApiError unreachable(const Error& last) const {
    std::string message;
    if (last.code == Code::kCancelled) {
      message = "the server is shutting down";
    } else if (!last.message.empty()) {
      message = fmt::format("no replica of '{}' can be reached: {}", call_.model, last.message);
    } else if (std::ranges::any_of(replicas_, &Replica::ready)) {
      message =
          fmt::format("no replica of '{}' could be reached a moment ago; try again in a moment", call_.model);
    } else {
      message = fmt::format("model '{}' is still loading; try again in a moment", call_.model);
    }
    return {.status = 503, .message = std::move(message), .type = "server_error", .code = "model_not_ready"};
  }

  // Settles, counts and logs.
  void end() {
    const std::int64_t now_ms = steady_now_ms();
    const bool gone = relay_.client_gone();
    Settlement settlement{.usage = relay_.usage(call_.prompt_tokens),
                          .status = gone ? kClientGone : relay_.status(),
                          .model = model_,
                          .path = request_.path,
                          .request_id = relay_.request_id(),
                          .replica = replica_,
                          .queued_ms = queued_ms_,
                          .total_ms = now_ms - relay_.started_ms()};
    if (relay_.first_byte_ms() > 0) settlement.first_byte_ms = relay_.first_byte_ms() - relay_.started_ms();
    if (permit_) permit_->settle(settlement);
    record(settlement);
  }

  void record(const Settlement& settlement) {
    // Only names that exist become a label, so that strangers cannot grow the metrics.
    const std::string label = model_.empty() ? "unknown" : model_;
    core_.requests.Add({{"model", label}, {"status", std::to_string(settlement.status)}}).Increment();
    if (relay_.first_byte_ms() > 0) {
      core_.first_byte_seconds
          .Add({{"model", label}},
               prometheus::Histogram::BucketBoundaries{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30})
          .Observe(static_cast<double>(settlement.first_byte_ms) / 1000);
    }
    const auto count = [&](const char* kind, std::int64_t tokens) {
      if (tokens > 0)
        core_.tokens.Add({{"model", label}, {"kind", kind}}).Increment(static_cast<double>(tokens));
    };
    count("prompt", settlement.usage.prompt_tokens);
    count("cached", settlement.usage.cached_tokens);
    count("completion", settlement.usage.completion_tokens);
    count("reasoning", settlement.usage.reasoning_tokens);
    log_info("request", "id={} path={} model={} status={} stream={} ms={}", relay_.request_id(), request_.path,
             label, settlement.status, relay_.streaming(), settlement.total_ms);
  }

  Core& core_;
  Exchange& exchange_;
  http::Request request_;
  CallerPtr caller_;
  Relay relay_;
  UpstreamCall call_;
  std::string model_;  // once it is known to exist
  std::string replica_;
  std::int64_t load_ = 0;
  std::int64_t queued_ms_ = 0;
  std::vector<Replica> replicas_;
  std::unique_ptr<Permit> permit_;
};

}  // namespace

void serve(Core& core, Exchange& exchange, http::Request request, CallerPtr caller,
           const http::ResponseWriterPtr& writer) {
  Flight(core, exchange, std::move(request), std::move(caller), writer).run();
}

}  // namespace capstan::gateway

// How: a request is parsed only for what routing needs (model, max_tokens); its bytes go to the replica
// unchanged, and the replica's bytes come back unchanged. The serving thread blocks on the replica; the
// client's leaving cancels that.
#include "gateway/gateway.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <atomic>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "gateway/load_board.h"
#include "gateway/openai_error.h"
#include "gateway/relay.h"
#include "http/cancel_when_gone.h"

namespace capstan::gateway {
namespace {

constexpr int kReplicasTriedMax = 3;
constexpr std::int64_t kTokensDefault = 256;  // assumed answer length where the request does not bound it
constexpr std::int64_t kTokensMax = 1 << 20;
constexpr std::size_t kAffinityBytes = 512;  // of the body: requests with the same beginning share a cache
constexpr int kReplicaSilenceMs = 600'000;
constexpr int kClientGone = 499;  // in metrics and log only: nobody is there to read it

// What the gateway reads of a request.
struct Parsed {
  std::string model;
  std::int64_t tokens = 0;
  std::uint64_t affinity_key = 0;
};

std::expected<Parsed, OpenAiError> parse(const http::Request& request) {
  const auto body = Json::parse(request.body);
  if (!body) return std::unexpected(OpenAiError{.message = "the body is " + body.error().message});
  if (!body->is_object())
    return std::unexpected(
        OpenAiError{.message = fmt::format("the body must be a JSON object, not {}", body->type_name())});
  Parsed parsed;
  const Json* model = body->find("model");
  if (model == nullptr || !model->is_string() || model->as_string().empty()) {
    return std::unexpected(OpenAiError{.message = "'model' is missing; name one of GET /v1/models",
                                       .param = "model",
                                       .code = "missing_required_parameter"});
  }
  parsed.model = model->as_string();
  const auto limit = body->get_int("max_completion_tokens") ? body->get_int("max_completion_tokens")
                                                            : body->get_int("max_tokens");
  parsed.tokens = static_cast<std::int64_t>(request.body.size() / 4) +
                  std::clamp<std::int64_t>(limit.value_or(kTokensDefault), 1, kTokensMax);
  parsed.affinity_key = routing::hash_text(std::string_view(request.body).substr(0, kAffinityBytes));
  return parsed;
}

std::string request_id_of(const http::Request& request) {
  const std::string given = request.headers.get("x-request-id");
  const bool plain = !given.empty() && given.size() <= 128 &&
                     std::ranges::all_of(given, [](unsigned char c) { return c > ' ' && c < 127; });
  return plain ? given : "req_" + random_hex(12);
}

}  // namespace

struct Gateway::State {
  const ReplicaDirectory& directory;
  std::shared_ptr<prometheus::Registry> registry;  // shared with the metrics endpoint
  prometheus::Family<prometheus::Counter>& requests;
  prometheus::Family<prometheus::Histogram>& first_byte_seconds;
  prometheus::Family<prometheus::Counter>& tokens;
  const GatewayLimits limits;
  std::atomic<int> under_way{0};
  LoadBoard board;
  http::Client client;

  State(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r, const GatewayLimits& l)
      : directory(d),
        registry(std::move(r)),
        requests(prometheus::BuildCounter()
                     .Name("capstan_gateway_requests_total")
                     .Help("Requests by model and status")
                     .Register(*registry)),
        first_byte_seconds(prometheus::BuildHistogram()
                               .Name("capstan_gateway_first_byte_seconds")
                               .Help("From a request's arrival to the first byte of its answer, by model")
                               .Register(*registry)),
        tokens(prometheus::BuildCounter()
                   .Name("capstan_gateway_tokens_total")
                   .Help("Tokens that replicas report, by model and kind (prompt, completion)")
                   .Register(*registry)),
        limits(l) {}

  OpenAiError unknown_model(const std::string& model, const std::vector<Replica>& all) const;
  Json models() const;
  void serve(const http::Request& request, const http::ResponseWriterPtr& writer);
  // Tries replicas until one answers; the error of the last one that could not be reached.
  Error dispatch(Relay& relay, const Parsed& parsed, const std::vector<Replica>& replicas,
                 http::Cancellation& cancellation);
  void refuse(Relay& relay, const Parsed& parsed, const std::vector<Replica>& all,
              const std::vector<Replica>& replicas, const Error& last);
  void record(const Relay& relay, const std::string& label, int status, const std::string& path);
};

namespace {

std::vector<std::string> names_of(const ReplicaDirectory& directory, const std::vector<Replica>& replicas) {
  std::vector<std::string> names;
  for (const Replica& replica : replicas) names.push_back(replica.model);
  for (const auto& [model, why] : directory.waiting()) names.push_back(model);
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Json model_object(const std::string& name) {
  return Json::object({{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "capstan"}});
}

// One more request under way, until this is gone.
class Slot {
 public:
  explicit Slot(std::atomic<int>& count) : count_(count), number_(++count) {}
  ~Slot() { --count_; }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  int number() const { return number_; }

 private:
  std::atomic<int>& count_;
  int number_;
};

}  // namespace

OpenAiError Gateway::State::unknown_model(const std::string& model, const std::vector<Replica>& all) const {
  for (const auto& [name, why] : directory.waiting()) {
    if (name == model)
      return {.status = 503,
              .message = fmt::format("model '{}' is not ready: {}", model, why),
              .type = "server_error",
              .code = "model_not_ready"};
  }
  const auto names = names_of(directory, all);
  const std::vector<std::string_view> views(names.begin(), names.end());
  std::string message = fmt::format("the model '{}' does not exist; ", model);
  if (const auto close = nearest(model, views)) {
    message += fmt::format("did you mean '{}'?", *close);
  } else {
    message +=
        names.empty() ? std::string("none is served") : fmt::format("served are: {}", fmt::join(names, ", "));
  }
  return {.status = 404, .message = std::move(message), .param = "model", .code = "model_not_found"};
}

Json Gateway::State::models() const {
  Json list = Json::array();
  for (const std::string& name : names_of(directory, directory.replicas()))
    list.push_back(model_object(name));
  return list;
}

Error Gateway::State::dispatch(Relay& relay, const Parsed& parsed, const std::vector<Replica>& replicas,
                               http::Cancellation& cancellation) {
  const routing::Request key{routing::hash_text(relay.request_id()), parsed.affinity_key};
  const http::Request upstream = relay.upstream();
  std::vector<std::string> tried;
  Error last{Code::kUnavailable, "", {}};
  while (true) {
    const auto chosen = routing::choose(board.view(replicas, tried, steady_now_ms()), key, {});
    if (!chosen) return last;
    const Replica& replica = replicas[*chosen];
    tried.push_back(replica.id);
    const bool others = tried.size() < kReplicasTriedMax &&
                        routing::choose(board.view(replicas, tried, steady_now_ms()), key, {}).has_value();
    board.begin(replica.id, parsed.tokens);
    const auto result = client.stream(
        replica.url, upstream, {.timeout_ms = kReplicaSilenceMs, .cancellation = &cancellation},
        [&](const http::Response& head) { return relay.on_head(head, others); },
        [&](std::string_view piece) { return relay.on_piece(piece); });
    board.end(replica.id, parsed.tokens);
    if (relay.turned_away() != 0) {
      // Full is told by its load; who answers 503 is loading or leaving.
      if (relay.turned_away() == 503) board.eject(replica.id, steady_now_ms());
      last = {Code::kUnavailable, fmt::format("{} answered {}", replica.id, relay.turned_away()), {}};
      continue;
    }
    if (result) {
      relay.finish();
      return last;
    }
    last = result.error();
    if (last.code == Code::kCancelled) {
      if (relay.begun()) relay.finish();
      return last;
    }
    if (relay.begun()) {
      relay.break_off(last.message);
      return last;
    }
    board.eject(replica.id, steady_now_ms());
    if (!others) return last;
  }
}

void Gateway::State::refuse(Relay& relay, const Parsed& parsed, const std::vector<Replica>& all,
                            const std::vector<Replica>& replicas, const Error& last) {
  if (replicas.empty()) return relay.refuse(unknown_model(parsed.model, all));
  std::string message;
  if (last.code == Code::kCancelled) {
    message = "the server is shutting down";
  } else if (!last.message.empty()) {
    message = fmt::format("no replica of '{}' can be reached: {}", parsed.model, last.message);
  } else if (std::ranges::any_of(replicas, &Replica::ready)) {
    message =
        fmt::format("no replica of '{}' could be reached a moment ago; try again in a moment", parsed.model);
  } else {
    message = fmt::format("model '{}' is still loading; try again in a moment", parsed.model);
  }
  relay.refuse(
      {.status = 503, .message = std::move(message), .type = "server_error", .code = "model_not_ready"});
}

void Gateway::State::serve(const http::Request& request, const http::ResponseWriterPtr& writer) {
  Relay relay(request, writer, request_id_of(request));
  const Slot slot(under_way);
  if (slot.number() > limits.requests_max) {
    relay.refuse(
        {.status = 503,
         .message = fmt::format("{} requests are under way, which is the limit; try again in a moment",
                                limits.requests_max),
         .type = "server_error",
         .code = "overloaded"});
    return record(relay, "unknown", relay.status(), request.path);
  }
  const auto parsed = parse(request);
  if (!parsed) {
    relay.refuse(parsed.error());
    return record(relay, "unknown", relay.status(), request.path);
  }
  const auto all = directory.replicas();
  auto replicas = all;
  std::erase_if(replicas, [&](const Replica& replica) { return replica.model != parsed->model; });
  Error last{Code::kUnavailable, "", {}};
  {
    http::Cancellation cancellation;
    const http::CancelWhenGone guard(*writer, cancellation);
    last = dispatch(relay, *parsed, replicas, cancellation);
  }
  const bool gone = last.code == Code::kCancelled && relay.client_gone();
  if (!relay.begun()) refuse(relay, *parsed, all, replicas, last);
  // Only names that exist become a label, so that strangers cannot grow the metrics.
  record(relay, replicas.empty() ? "unknown" : parsed->model, gone ? kClientGone : relay.status(),
         request.path);
}

void Gateway::State::record(const Relay& relay, const std::string& label, int status,
                            const std::string& path) {
  requests.Add({{"model", label}, {"status", std::to_string(status)}}).Increment();
  if (relay.first_byte_ms() > 0) {
    first_byte_seconds
        .Add({{"model", label}},
             prometheus::Histogram::BucketBoundaries{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30})
        .Observe(static_cast<double>(relay.first_byte_ms() - relay.started_ms()) / 1000);
  }
  const Json usage = relay.usage();
  for (const char* kind : {"prompt", "completion"}) {
    const auto count = usage.get_int(fmt::format("{}_tokens", kind));
    if (count && *count > 0)
      tokens.Add({{"model", label}, {"kind", kind}}).Increment(static_cast<double>(*count));
  }
  log_info("request", "id={} path={} model={} status={} stream={} ms={}", relay.request_id(), path, label,
           status, relay.streaming(), steady_now_ms() - relay.started_ms());
}

Gateway::Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
                 const GatewayLimits& limits)
    : state_(std::make_shared<State>(directory, std::move(registry), limits)) {}
Gateway::~Gateway() = default;

void Gateway::mount(http::Router& router) {
  const auto with_id = [](const http::Request& request, http::Response response) {
    response.headers.set("x-request-id", request_id_of(request));
    return response;
  };
  for (const std::string prefix : {"/v1", "/openai/v1"}) {
    const auto relay = [state = state_](const http::Request& request, const http::ResponseWriterPtr& writer) {
      state->serve(request, writer);
    };
    router.add("POST", prefix + "/chat/completions", relay);
    router.add("POST", prefix + "/completions", relay);
    router.add(
        "GET", prefix + "/models",
        [state = state_, with_id](const http::Request& request, const http::ResponseWriterPtr& writer) {
          writer->respond(with_id(
              request,
              http::Response::json(200, Json::object({{"object", "list"}, {"data", state->models()}}))));
        });
    router.add(
        "GET", prefix + "/models/{model...}",
        [state = state_, with_id](const http::Request& request, const http::ResponseWriterPtr& writer) {
          const std::string model = request.param("model");
          const Json models = state->models();
          for (const Json& known : models.items()) {
            if (known.get_string("id") == model)
              return writer->respond(with_id(request, http::Response::json(200, known)));
          }
          auto error = state->unknown_model(model, state->directory.replicas());
          writer->respond(with_id(request, to_response(error)));
        });
    router.set_refusal(prefix + "/", [with_id](const http::Request& request, int status,
                                               const std::string& allow) {
      const std::string message =
          status == 405 ? fmt::format("{} is not allowed on {}; use {}", request.method, request.path, allow)
                        : fmt::format("there is nothing at {} {}", request.method, request.path);
      return with_id(request, to_response({.status = status,
                                           .message = message,
                                           .code = status == 404 ? "unknown_url" : "method_not_allowed"}));
    });
  }
}

void Gateway::cancel() { state_->client.cancel(); }

}  // namespace capstan::gateway

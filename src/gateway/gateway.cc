// How: a request is parsed only for what routing needs (model, stream, max_tokens); its bytes go to the replica unchanged, and the
// replica's bytes come back unchanged. The serving thread blocks on the replica; the client's leaving cancels that.
#include "gateway/gateway.h"

#include <algorithm>
#include <chrono>

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "gateway/load_board.h"
#include "gateway/openai_error.h"

namespace capstan::gateway {
namespace {

constexpr int kReplicasTriedMax = 3;
constexpr std::int64_t kTokensDefault = 256;     // assumed answer length where the request does not bound it
constexpr std::int64_t kTokensMax = 1 << 20;
constexpr std::size_t kAffinityBytes = 512;      // of the body: requests with the same beginning share a cache
constexpr int kReplicaSilenceMs = 600'000;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What the gateway reads of a request.
struct Parsed {
  std::string model;
  bool stream = false;
  std::int64_t tokens = 0;
};

std::expected<Parsed, OpenAiError> parse(const http::Request& request) {
  const auto body = Json::parse(request.body);
  if (!body) return std::unexpected(OpenAiError{.message = "the body is " + body.error().message});
  if (!body->is_object()) return std::unexpected(OpenAiError{.message = fmt::format("the body must be a JSON object, not {}", body->type_name())});
  Parsed parsed;
  const Json* model = body->find("model");
  if (model == nullptr || !model->is_string() || model->as_string().empty()) {
    return std::unexpected(OpenAiError{.message = "'model' is missing; name one of GET /v1/models", .param = "model", .code = "missing_required_parameter"});
  }
  parsed.model = model->as_string();
  parsed.stream = body->get_bool("stream").value_or(false);
  const auto limit = body->get_int("max_completion_tokens") ? body->get_int("max_completion_tokens") : body->get_int("max_tokens");
  parsed.tokens = static_cast<std::int64_t>(request.body.size() / 4) + std::clamp<std::int64_t>(limit.value_or(kTokensDefault), 1, kTokensMax);
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
  LoadBoard board;
  http::Client client;

  State(const ReplicaDirectory& d, std::shared_ptr<prometheus::Registry> r)
      : directory(d),
        registry(std::move(r)),
        requests(prometheus::BuildCounter().Name("capstan_gateway_requests_total").Help("Requests by model and status").Register(*registry)),
        first_byte_seconds(prometheus::BuildHistogram()
                               .Name("capstan_gateway_first_byte_seconds")
                               .Help("From a request's arrival to the first byte of its answer, by model")
                               .Register(*registry)) {}

  void count(const std::string& model, int status) { requests.Add({{"model", model}, {"status", std::to_string(status)}}).Increment(); }

  OpenAiError unknown_model(const std::string& model, const std::vector<Replica>& all) const;
  Json models() const;
  void relay(const http::Request& request, const http::ResponseWriterPtr& writer);
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

// One request under way: where its answer goes and what of it was sent.
struct Relay {
  const http::Request& request;
  http::ResponseWriterPtr writer;
  std::string request_id;
  std::int64_t started_ms = now_ms();
  std::int64_t first_byte_ms = 0;
  int status = 0;
  bool streaming = false;
  http::Response whole = {};

  http::Request upstream() const {
    http::Request out{.method = request.method, .target = request.target, .body = request.body};
    if (const auto at = out.target.find("/openai/v1"); at == 0) out.target.erase(0, 7);
    for (const char* name : {"content-type", "accept", "traceparent", "tracestate"}) {
      if (const std::string* value = request.headers.find(name)) out.headers.set(name, *value);
    }
    out.headers.set("x-request-id", request_id);
    return out;
  }

  bool on_head(const http::Response& head) {
    status = head.status;
    first_byte_ms = now_ms();
    const std::string type = head.headers.get("content-type");
    http::Headers headers{{"content-type", type}, {"x-request-id", request_id}};
    for (const char* name : {"retry-after", "retry-after-ms", "x-should-retry", "cache-control"}) {
      if (const std::string* value = head.headers.find(name)) headers.set(name, *value);
    }
    streaming = type.starts_with("text/event-stream");
    if (streaming) {
      writer->start(status, std::move(headers));
    } else {
      whole = {status, std::move(headers), {}};
    }
    return true;
  }

  bool on_piece(std::string_view piece) {
    if (streaming) return writer->write(piece);
    whole.body += piece;
    return !writer->client_gone();
  }

  void refuse(const OpenAiError& error) {
    http::Response response = to_response(error);
    response.headers.set("x-request-id", request_id);
    status = error.status;
    writer->respond(std::move(response));
  }
};

}  // namespace

OpenAiError Gateway::State::unknown_model(const std::string& model, const std::vector<Replica>& all) const {
  for (const auto& [name, why] : directory.waiting()) {
    if (name == model) return {.status = 503, .message = fmt::format("model '{}' is not ready: {}", model, why), .type = "server_error", .code = "model_not_ready"};
  }
  const auto names = names_of(directory, all);
  const std::vector<std::string_view> views(names.begin(), names.end());
  std::string message = fmt::format("the model '{}' does not exist; ", model);
  if (const auto close = nearest(model, views)) {
    message += fmt::format("did you mean '{}'?", *close);
  } else {
    message += names.empty() ? std::string("none is served") : fmt::format("served are: {}", fmt::join(names, ", "));
  }
  return {.status = 404, .message = std::move(message), .param = "model", .code = "model_not_found"};
}

Json Gateway::State::models() const {
  Json list = Json::array();
  for (const std::string& name : names_of(directory, directory.replicas())) list.push_back(model_object(name));
  return list;
}

void Gateway::State::relay(const http::Request& request, const http::ResponseWriterPtr& writer) {
  Relay relay{request, writer, request_id_of(request)};
  const auto parsed = parse(request);
  if (!parsed) return relay.refuse(parsed.error());
  auto replicas = directory.replicas();
  const auto all = replicas;
  std::erase_if(replicas, [&](const Replica& replica) { return replica.model != parsed->model; });

  http::Cancellation cancellation;
  // Shared: the callback may come after this frame is gone only if it was never called; it is dropped with the answer.
  const auto gone = std::make_shared<std::pair<std::mutex, http::Cancellation*>>();
  gone->second = &cancellation;
  writer->on_client_gone([gone] {
    const std::scoped_lock lock(gone->first);
    if (gone->second != nullptr) gone->second->cancel();
  });

  const routing::Request key{routing::hash_text(relay.request_id), routing::hash_text(std::string_view(request.body).substr(0, kAffinityBytes))};
  std::vector<std::string> tried;
  Error last{Code::kUnavailable, "no replica is ready", {}};
  while (relay.status == 0 && tried.size() < kReplicasTriedMax) {
    const auto chosen = routing::choose(board.view(replicas, tried, now_ms()), key, {});
    if (!chosen) break;
    const Replica& replica = replicas[*chosen];
    tried.push_back(replica.id);
    board.begin(replica.id, parsed->tokens);
    const auto result = client.stream(replica.url, relay.upstream(), {.timeout_ms = kReplicaSilenceMs, .cancellation = &cancellation},
                                      [&](const http::Response& head) { return relay.on_head(head); },
                                      [&](std::string_view piece) { return relay.on_piece(piece); });
    board.end(replica.id, parsed->tokens);
    if (result || result.error().code == Code::kCancelled) break;
    last = result.error();
    if (relay.status == 0) board.eject(replica.id, now_ms());
    if (relay.status != 0 && !relay.streaming) {
      relay.whole = to_response({.status = 502, .message = "the replica broke off its answer: " + last.message, .type = "server_error"});
    }
  }
  {
    const std::scoped_lock lock(gone->first);
    gone->second = nullptr;
  }
  if (relay.status != 0 && relay.streaming) {
    writer->finish();
  } else if (relay.status != 0) {
    relay.whole.headers.set("x-request-id", relay.request_id);
    writer->respond(std::move(relay.whole));
  } else if (replicas.empty()) {
    relay.refuse(unknown_model(parsed->model, all));
  } else {
    const bool starting = tried.empty();
    relay.refuse({.status = 503,
                  .message = starting ? fmt::format("model '{}' is still loading; try again in a moment", parsed->model)
                                      : fmt::format("no replica of '{}' can be reached: {}", parsed->model, last.message),
                  .type = "server_error",
                  .code = "model_not_ready"});
  }
  // Only names that exist become a label, so that strangers cannot grow the metrics.
  const std::string label = replicas.empty() ? "unknown" : parsed->model;
  count(label, relay.status);
  if (relay.first_byte_ms > 0) {
    first_byte_seconds.Add({{"model", label}}, prometheus::Histogram::BucketBoundaries{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30})
        .Observe(static_cast<double>(relay.first_byte_ms - relay.started_ms) / 1000);
  }
  log_info("request", "id={} path={} model={} status={} stream={} ms={}", relay.request_id, request.path, label, relay.status,
           relay.streaming, now_ms() - relay.started_ms);
}

Gateway::Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry)
    : state_(std::make_shared<State>(directory, std::move(registry))) {}
Gateway::~Gateway() = default;

void Gateway::mount(http::Router& router) {
  const auto with_id = [](const http::Request& request, http::Response response) {
    response.headers.set("x-request-id", request_id_of(request));
    return response;
  };
  for (const std::string prefix : {"/v1", "/openai/v1"}) {
    const auto relay = [state = state_](const http::Request& request, const http::ResponseWriterPtr& writer) { state->relay(request, writer); };
    router.add("POST", prefix + "/chat/completions", relay);
    router.add("POST", prefix + "/completions", relay);
    router.add("GET", prefix + "/models", [state = state_, with_id](const http::Request& request, const http::ResponseWriterPtr& writer) {
      writer->respond(with_id(request, http::Response::json(200, Json::object({{"object", "list"}, {"data", state->models()}}))));
    });
    router.add("GET", prefix + "/models/{model...}", [state = state_, with_id](const http::Request& request, const http::ResponseWriterPtr& writer) {
      const std::string model = request.param("model");
      const Json models = state->models();
      for (const Json& known : models.items()) {
        if (known.get_string("id") == model) return writer->respond(with_id(request, http::Response::json(200, known)));
      }
      auto error = state->unknown_model(model, state->directory.replicas());
      writer->respond(with_id(request, to_response(error)));
    });
    router.set_refusal(prefix + "/", [with_id](const http::Request& request, int status, const std::string& allow) {
      const std::string message = status == 405 ? fmt::format("{} is not allowed on {}; use {}", request.method, request.path, allow)
                                                : fmt::format("there is nothing at {} {}", request.method, request.path);
      return with_id(request, to_response({.status = status, .message = message, .code = status == 404 ? "unknown_url" : "method_not_allowed"}));
    });
  }
}

void Gateway::cancel() { state_->client.cancel(); }

}  // namespace capstan::gateway

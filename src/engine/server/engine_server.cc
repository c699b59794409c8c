// Stages: loading -> ready -> draining. The model is published once, under the mutex; handlers take a pointer
// that stays valid because the HTTP server runs no handler any more before the model goes.
#include "engine/server/engine_server.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/build_id.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "engine/server/chat_answer.h"
#include "engine/server/completion_answer.h"
#include "engine/server/kv_blocks.h"
#include "engine/server/tokenize.h"
#include "http/server.h"

namespace capstan::engine {
namespace {

constexpr int kRetryAfterMs = 1000;
constexpr int kPriorityMax = 100;
constexpr int kHandlerThreads = 4;  // handlers parse and tokenise; generation has a thread of its own

http::Response not_ready() {
  return error_response(ApiError::unavailable("The model is not ready: GET /health says why.", kRetryAfterMs));
}

}  // namespace

struct EngineServer::State {
  explicit State(EngineServerOptions given) : options(std::move(given)), metrics(options.served_name) {}

  ServedModel* ready_model() {
    const std::lock_guard lock(mutex);
    return draining ? nullptr : model.get();
  }
  void routes(http::Router& router);
  std::optional<http::Response> guard(const http::Request& request) const;
  void health(const http::ResponseWriterPtr& writer);
  void models(const http::Request& request, const http::ResponseWriterPtr& writer, bool one);
  template <class Parse, class Run>
  void generate(const http::Request& request, const http::ResponseWriterPtr& writer, Parse parse, Run run);
  void respond(const http::Request& request, const http::ResponseWriterPtr& writer,
               const http::Response& response) {
    metrics.http_answer(request.path, response.status);
    writer->respond(response);
  }

  EngineServerOptions options;
  int port = 0;
  Metrics metrics;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
  std::mutex mutex;
  std::condition_variable changed;
  std::string stage = "starting";
  std::uint64_t done = 0, total = 0;  // of the stage, in bytes
  std::optional<Error> load_error;
  bool draining = false;
  std::unique_ptr<ServedModel> model;
  std::unique_ptr<http::Server> server;  // ends before the model
  std::thread loader;
};

void EngineServer::State::health(const http::ResponseWriterPtr& writer) {
  const std::lock_guard lock(mutex);
  Json body = Json::object();
  int status = 503;
  if (draining) {
    body["status"] = "draining";
  } else if (load_error) {
    body["status"] = "failed";
    body["message"] = load_error->message;
  } else if (model) {
    body["status"] = "ok";
    status = 200;
  } else {
    body["status"] = "loading";
    body["stage"] = stage;
    body["message"] = total > 0 ? fmt::format("loading {} %", done * 100 / total) : "loading";
    if (total > 0) {
      body["percent"] = done * 100 / total;
      body["done_bytes"] = done;
      body["total_bytes"] = total;
    }
    body["elapsed_ms"] =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started)
            .count();
  }
  body["model"] = options.served_name;
  writer->respond(http::Response::json(status, body));
}

void EngineServer::State::models(const http::Request& request, const http::ResponseWriterPtr& writer,
                                 bool one) {
  const ServedModel* ready = ready_model();
  if (one && request.param("id") != options.served_name) {
    respond(request, writer, error_response(ApiError::model_not_found(request.param("id"))));
    return;
  }
  Json entry = Json::object({{"id", options.served_name},
                             {"object", "model"},
                             {"created", ready ? ready->created_s : 0},
                             {"owned_by", "capstan"}});
  if (ready) entry["max_model_len"] = ready->context;  // vLLM's name for the context
  Json list = Json::array();
  if (ready) list.push_back(entry);
  respond(
      request, writer,
      http::Response::json(200, one ? entry : Json::object({{"object", "list"}, {"data", std::move(list)}})));
}

template <class Parse, class Run>
void EngineServer::State::generate(const http::Request& request, const http::ResponseWriterPtr& writer,
                                   Parse parse, Run run) {
  ServedModel* ready = ready_model();
  if (ready == nullptr) {
    respond(request, writer, not_ready());
    return;
  }
  const auto parsed = parse(request.body);
  const std::string* given = request.headers.find("x-capstan-priority");
  const auto priority = given == nullptr ? std::optional<std::int64_t>(0) : parse_int(*given);
  if (!priority || *priority < -kPriorityMax || *priority > kPriorityMax) {
    respond(request, writer,
            error_response(ApiError::bad_value(
                "x-capstan-priority", fmt::format("Invalid header 'x-capstan-priority': expected a number from {} to {}.",
                                                  -kPriorityMax, kPriorityMax))));
  } else if (!parsed) {
    respond(request, writer, error_response(parsed.error()));
  } else if (parsed->model != options.served_name) {
    respond(request, writer, error_response(ApiError::model_not_found(parsed->model)));
  } else {
    run(Answer::Context{.model = *ready,
                        .metrics = metrics,
                        .writer = writer,
                        .path = request.path,
                        .tenant = request.headers.get("x-capstan-tenant"),
                        .priority = static_cast<int>(*priority)},
        *parsed);
  }
}

void EngineServer::State::routes(http::Router& router) {
  router.add("POST", "/v1/chat/completions",
             [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
               generate(request, writer, parse_chat_request, answer_chat);
             });
  router.add("POST", "/v1/completions",
             [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
               generate(request, writer, parse_completion_request, answer_completion);
             });
  router.add("GET", "/v1/kv_blocks", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const ServedModel* ready = ready_model();
    respond(request, writer, ready == nullptr ? not_ready() : kv_blocks(*ready, request));
  });
  router.add("POST", "/v1/chat/prompt_blocks", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const ServedModel* ready = ready_model();
    respond(request, writer, ready == nullptr ? not_ready() : prompt_blocks(*ready, request.body));
  });
  router.add("GET", "/v1/models",
             [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
               models(request, writer, false);
             });
  router.add("GET", "/v1/models/{id}",
             [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
               models(request, writer, true);
             });
  using Tokens = http::Response (*)(const ServedModel&, std::string_view);
  for (const auto& [path, function] : {std::pair<const char*, Tokens>("/tokenize", tokenize), {"/detokenize", detokenize}}) {
    router.add("POST", path, [this, function](const http::Request& request, const http::ResponseWriterPtr& writer) {
      const ServedModel* ready = ready_model();
      respond(request, writer, ready != nullptr ? function(*ready, request.body) : not_ready());
    });
  }
  router.add("POST", "/v1/embeddings", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    respond(request, writer,
            error_response(ApiError::unsupported(
                "model", fmt::format("The model '{}' does not give embeddings: it was trained to answer. Use an embedding "
                                     "model.",
                                     options.served_name))));
  });
  router.add("GET", "/version", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    respond(request, writer, http::Response::json(200, Json::object({{"version", build_id()}})));
  });
  router.add("GET", "/health",
             [this](const http::Request&, const http::ResponseWriterPtr& writer) { health(writer); });
  router.add("GET", "/metrics", [this](const http::Request&, const http::ResponseWriterPtr& writer) {
    const ServedModel* ready = ready_model();
    writer->respond(http::Response::text(200, metrics.text(ready ? ready->source->stats() : BatchStats{}),
                                         "text/plain; version=0.0.4; charset=utf-8"));
  });
  router.set_refusal("/", [](const http::Request& request, int status, const std::string& allow) {
    ApiError error{.status = status,
                   .message = fmt::format("Unknown request URL: {} {}.", request.method, request.path),
                   .code = "unknown_url"};
    if (status == 405)
      error.message =
          fmt::format("Method {} is not allowed for {}; allowed: {}.", request.method, request.path, allow);
    http::Response response = error_response(error);
    if (!allow.empty()) response.headers.set("allow", allow);
    return response;
  });
  router.add_guard("/", [this](const http::Request& request) { return guard(request); });
}

// With a key: who has it may come from anywhere. Without: only this machine's programs, no web page.
std::optional<http::Response> EngineServer::State::guard(const http::Request& request) const {
  if (options.api_key.empty()) return http::refuse_foreign(request, {});
  if (request.path == "/health") return std::nullopt;
  const std::string given = request.headers.get("authorization");
  if (equal_constant_time(given, "Bearer " + options.api_key)) return std::nullopt;
  return error_response({.status = 401,
                         .message = given.empty() ? "No API key: send it as 'Authorization: Bearer KEY'."
                                                  : "Incorrect API key provided.",
                         .code = "invalid_api_key"});
}

EngineServer::EngineServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
EngineServer::~EngineServer() { drain(0); }

Result<std::unique_ptr<EngineServer>> EngineServer::start(EngineServerOptions options, Loader loader) {
  if (!http::is_loopback(options.host) && (options.tls_key.empty() || options.api_key.empty())) {
    return fail(Code::kInvalid,
                "host {} is not loopback: that needs --tls-cert, --tls-key and --api-key-file; or use --host 127.0.0.1 "
                "and reach the engine through the gateway, which has TLS, keys and limits",
                options.host);
  }
  auto state = std::make_unique<State>(std::move(options));
  State* raw = state.get();
  http::Router router;
  raw->routes(router);
  CAPSTAN_TRY(
      raw->server,
      http::Server::start({.host = raw->options.host,
                           .port = raw->options.port,
                           .threads = kHandlerThreads,
                           .tls_certificate = raw->options.tls_certificate,
                           .tls_key = raw->options.tls_key},
                          router.handler()));
  raw->port = raw->server->port();
  raw->loader = std::thread([raw, loader = std::move(loader)] {
    auto loaded = loader([raw](const LoadProgress& progress) {
      const std::lock_guard lock(raw->mutex);
      raw->stage = progress.stage;
      raw->done = progress.done;
      raw->total = progress.total;
    });
    const std::lock_guard lock(raw->mutex);
    if (loaded) {
      raw->model = std::make_unique<ServedModel>(*std::move(loaded));
    } else {
      raw->load_error = std::move(loaded.error());
    }
    raw->changed.notify_all();
  });
  return std::unique_ptr<EngineServer>(new EngineServer(std::move(state)));
}

int EngineServer::port() const { return state_->port; }

Result<void> EngineServer::wait_ready() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->model || state_->load_error || state_->draining; });
  if (state_->load_error) return std::unexpected(*state_->load_error);
  if (!state_->model) return fail(Code::kCancelled, "stopped while the model was loading");
  return {};
}

bool EngineServer::ready() const { return state_->ready_model() != nullptr; }

std::optional<Error> EngineServer::load_error() const {
  const std::lock_guard lock(state_->mutex);
  return state_->load_error;
}

void EngineServer::drain(int drain_ms) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->draining = true;
    state_->changed.notify_all();
  }
  if (!state_->server) return;  // drained before
  state_->server->stop(drain_ms);
  if (state_->loader.joinable()) state_->loader.join();
  // Ends the generations that the drain did not wait for. Their answers let go of their connections, which
  // must happen while the HTTP server still exists; then it goes and closes what is left.
  std::unique_ptr<TokenSource> source;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->model) source = std::move(state_->model->source);
  }
  source.reset();
  state_->server.reset();
}

}  // namespace capstan::engine

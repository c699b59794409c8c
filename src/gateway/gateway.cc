// How: a table of routes, each an exchange's factory or an endpoint; what a request then goes through is in
// flight.cc, how its answer comes back in relay.cc.
#include "gateway/gateway.h"

#include "base/assert.h"
#include "gateway/core.h"
#include "gateway/flight.h"
#include "gateway/openai_error.h"
#include "gateway/passthrough.h"

namespace capstan::gateway {
namespace {

constexpr std::string_view kAlias = "/openai";  // before /v1: where OpenAI's client for Bedrock looks

Json model_object(const std::string& name) {
  return Json::object({{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "capstan"}});
}

Json models_list(const ReplicaDirectory& directory) {
  Json list = Json::array();
  for (const std::string& name : model_names(directory, directory.replicas())) list.push_back(model_object(name));
  return Json::object({{"object", "list"}, {"data", std::move(list)}});
}

http::Response model_answer(const ReplicaDirectory& directory, const std::string& model) {
  const auto replicas = directory.replicas();
  for (const std::string& name : model_names(directory, replicas)) {
    if (name == model) return http::Response::json(200, model_object(name));
  }
  return to_response(unknown_model(directory, model, replicas));
}

void serve_endpoint(Core& core, const Gateway::Endpoint& endpoint, const Gateway::ErrorShape& shape,
                    const http::Request& request, const http::ResponseWriterPtr& writer) {
  const auto caller = core.authenticator->authenticate(request);
  if (!caller) return writer->respond(with_id(request, shape(caller.error())));
  endpoint(request, *caller, writer);
}

ApiError no_route(const http::Request& request, int status, const std::string& allow) {
  if (status == 405)
    return {.status = 405,
            .message = fmt::format("{} is not allowed on {}; use {}", request.method, request.path, allow),
            .code = "method_not_allowed"};
  return {.status = 404,
          .message = fmt::format("there is nothing at {} {}", request.method, request.path),
          .code = "unknown_url"};
}

// A compressed body would be read as broken JSON.
std::optional<ApiError> refuse_coding(const http::Request& request) {
  const std::string* coding = request.headers.find("content-encoding");
  if (coding == nullptr || coding->empty() || *coding == "identity") return std::nullopt;
  return ApiError{.status = 415,
                  .message = fmt::format("the body is encoded as '{}'; send it without content-encoding", *coding),
                  .code = "unsupported_content_encoding"};
}

}  // namespace

http::Response with_id(const http::Request& request, http::Response response) {
  response.headers.set("x-request-id", request_id_of(request));
  return response;
}

http::Headers trace_of(const http::Request& request) {
  http::Headers trace;
  for (const char* name : {"traceparent", "tracestate"}) {
    const std::string* value = request.headers.find(name);
    if (value != nullptr && value->find_first_of("\r\n") == std::string::npos) trace.add(name, *value);
  }
  return trace;
}

struct Gateway::State {
  struct ExchangeRoute {
    std::string method;
    std::string pattern;
    ExchangeFactory factory;
    Blocking blocking;
    Takes takes = {};
    Endpoint diverted = {};
    ErrorShape shape = {};
  };
  struct LargeBody {
    std::string method;
    std::string path;
    std::uint64_t bytes_max;
  };
  struct EndpointRoute {
    std::string method;
    std::string pattern;
    Endpoint endpoint;
    ErrorShape shape;
  };
  State(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
        const GatewayOptions& options)
      : core(std::make_shared<Core>(directory, std::move(registry), options)) {}

  const ExchangeRoute* find(const http::Request& request) const {
    for (const auto& route : exchanges) {
      if (route.method == request.method && route.pattern == request.target) return &route;
    }
    return nullptr;
  }

  std::shared_ptr<Core> core;  // shared with requests under way
  std::vector<ExchangeRoute> exchanges;
  std::vector<EndpointRoute> endpoints;
  std::vector<LargeBody> large_bodies;
  std::vector<std::function<void()>> stop_tasks;
  std::vector<std::pair<std::string, ErrorShape>> surfaces = {{"/v1/", to_response}, {"/openai/v1/", to_response}};
};

Gateway::Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
                 const GatewayOptions& options)
    : state_(std::make_shared<State>(directory, std::move(registry), options)) {
  for (const std::string path : {"/v1/chat/completions", "/v1/completions"})
    add_exchange("POST", path, [path] { return std::make_unique<PassThrough>(path); });
  const ReplicaDirectory& all = directory;
  add_endpoint(
      "GET", "/v1/models",
      [&all](const http::Request& request, const CallerPtr&, const http::ResponseWriterPtr& writer) {
        writer->respond(with_id(request, http::Response::json(200, models_list(all))));
      },
      to_response);
  add_endpoint(
      "GET", "/v1/models/{model...}",
      [&all](const http::Request& request, const CallerPtr&, const http::ResponseWriterPtr& writer) {
        writer->respond(with_id(request, model_answer(all, request.param("model"))));
      },
      to_response);
}
Gateway::~Gateway() = default;

void Gateway::add_exchange(std::string method, std::string pattern, ExchangeFactory factory, Blocking blocking) {
  std::erase_if(state_->exchanges, [&](const auto& route) { return route.method == method && route.pattern == pattern; });
  state_->exchanges.push_back({std::move(method), std::move(pattern), std::move(factory), blocking});
}

void Gateway::divert(const std::string& pattern, Takes takes, Endpoint endpoint, ErrorShape shape) {
  for (auto& route : state_->exchanges) {
    if (route.pattern != pattern) continue;
    CAPSTAN_ASSERT(route.blocking == Blocking::kBegin);
    route.takes = std::move(takes);
    route.diverted = std::move(endpoint);
    route.shape = std::move(shape);
    return;
  }
  CAPSTAN_ASSERT(false);
}

void Gateway::add_endpoint(std::string method, std::string pattern, Endpoint endpoint, ErrorShape shape) {
  state_->endpoints.push_back({std::move(method), std::move(pattern), std::move(endpoint), std::move(shape)});
}

void Gateway::allow_large_bodies(std::string method, std::string path, std::uint64_t bytes_max) {
  state_->large_bodies.push_back({std::move(method), std::move(path), bytes_max});
}

void Gateway::add_surface(std::string prefix, ErrorShape shape) {
  state_->surfaces.emplace_back(std::move(prefix), std::move(shape));
}

void Gateway::set_authenticator(std::unique_ptr<Authenticator> authenticator) {
  state_->core->authenticator = std::move(authenticator);
}

void Gateway::set_admission(std::unique_ptr<Admission> admission) { state_->core->admission = std::move(admission); }

void Gateway::mount(http::Router& router) {
  const auto both = [](const std::string& pattern, const auto& add) {
    add(pattern);
    if (pattern.starts_with("/v1/")) add(std::string(kAlias) + pattern);
  };
  for (const auto& route : state_->exchanges) {
    both(route.pattern, [&](const std::string& pattern) {
      if (route.blocking == Blocking::kBegin) {
        router.add(route.method, pattern,
                   [core = state_->core, route](const http::Request& request, const http::ResponseWriterPtr& writer) {
                     if (!route.takes || !route.takes(request))
                       return fly_after_blocking(core, route.factory(), request, nullptr, writer);
                     serve_endpoint(*core, route.diverted, route.shape, request, writer);
                   });
      } else {
        router.add_on_loop(route.method, pattern,
                           [core = state_->core, factory = route.factory](http::Request request,
                                                                          const http::ResponseWriterPtr& writer) {
                             fly(core, factory(), std::move(request), nullptr, writer);
                           });
      }
    });
  }
  for (const auto& route : state_->endpoints) {
    const auto handler = [core = state_->core, endpoint = route.endpoint, shape = route.shape](
                             const http::Request& request, const http::ResponseWriterPtr& writer) {
      serve_endpoint(*core, endpoint, shape, request, writer);
    };
    both(route.pattern, [&](const std::string& pattern) { router.add(route.method, pattern, handler); });
  }
  for (const auto& large : state_->large_bodies)
    both(large.path, [&](const std::string& path) { router.allow_large_bodies(large.method, path, large.bytes_max); });
  for (const auto& [prefix, shape] : state_->surfaces) {
    router.set_refusal(prefix, [shape](const http::Request& request, int status, const std::string& allow) {
      return with_id(request, shape(no_route(request, status, allow)));
    });
    router.add_guard(prefix, [shape](const http::Request& request) -> std::optional<http::Response> {
      const auto refused = refuse_coding(request);
      return refused ? std::optional(with_id(request, shape(*refused))) : std::nullopt;
    });
  }
  router.add_loop_hooks([core = state_->core](http::EventLoop& loop) { core->start_on(loop); },
                        [core = state_->core, tasks = state_->stop_tasks] {
                          for (const auto& task : tasks) task();
                          core->stop();
                        });
}

Result<void> Gateway::perform(http::Request request, const CallerPtr& caller,
                              const http::ResponseWriterPtr& writer) {
  const auto* route = state_->find(request);
  if (route == nullptr) return fail(Code::kNotFound, "there is nothing at {} {}", request.method, request.target);
  http::EventLoop* loop = state_->core->loop;
  if (loop == nullptr) return fail(Code::kUnavailable, "the server does not run");
  request.path = request.target;
  if (route->takes && route->takes(request)) {
    route->diverted(request, caller, writer);
  } else if (route->blocking == Blocking::kBegin) {
    fly_after_blocking(state_->core, route->factory(), std::move(request), caller, writer);
  } else {
    return perform(route->factory(), std::move(request), caller, writer);
  }
  return {};
}

Result<void> Gateway::perform(std::unique_ptr<Exchange> exchange, http::Request request, const CallerPtr& caller,
                              const http::ResponseWriterPtr& writer) {
  http::EventLoop* loop = state_->core->loop;
  if (loop == nullptr) return fail(Code::kUnavailable, "the server does not run");
  request.path = request.target;
  const std::shared_ptr<Exchange> shared = std::move(exchange);
  loop->post([core = state_->core, shared, request = std::move(request), caller, writer] {
    fly(core, shared, request, caller, writer);
  });
  return {};
}

void Gateway::at_stop(std::function<void()> task) { state_->stop_tasks.push_back(std::move(task)); }

http::EventLoop* Gateway::loop() const { return state_->core->loop; }

const ServiceWatch& Gateway::watch() const { return state_->core->watch; }

void Gateway::cancel() {
  if (http::EventLoop* loop = state_->core->loop; loop != nullptr) {
    loop->post([core = state_->core] {
      while (!core->in_flight.empty()) core->in_flight.front().shut_down();
    });
  }
}

}  // namespace capstan::gateway

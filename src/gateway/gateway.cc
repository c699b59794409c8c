// How: a table of routes, each an exchange's factory or an endpoint; what a request then goes through is in
// flight.cc, how its answer comes back in relay.cc.
#include "gateway/gateway.h"

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

http::Response with_id(const http::Request& request, http::Response response) {
  response.headers.set("x-request-id", request_id_of(request));
  return response;
}

http::Response refuse_route(const http::Request& request, int status, const std::string& allow) {
  const std::string message =
      status == 405 ? fmt::format("{} is not allowed on {}; use {}", request.method, request.path, allow)
                    : fmt::format("there is nothing at {} {}", request.method, request.path);
  return with_id(request, to_response({.status = status,
                                       .message = message,
                                       .code = status == 404 ? "unknown_url" : "method_not_allowed"}));
}

}  // namespace

struct Gateway::State {
  struct ExchangeRoute {
    std::string method;
    std::string pattern;
    ExchangeFactory factory;
    Blocking blocking;
  };
  struct EndpointRoute {
    std::string method;
    std::string pattern;
    Endpoint endpoint;
    ErrorShape shape;
  };
  State(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
        const GatewayLimits& limits)
      : core(directory, std::move(registry), limits) {}

  Core core;
  std::vector<ExchangeRoute> exchanges;
  std::vector<EndpointRoute> endpoints;
};

Gateway::Gateway(const ReplicaDirectory& directory, std::shared_ptr<prometheus::Registry> registry,
                 const GatewayLimits& limits)
    : state_(std::make_shared<State>(directory, std::move(registry), limits)) {
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
  state_->exchanges.push_back({std::move(method), std::move(pattern), std::move(factory), blocking});
}

void Gateway::add_endpoint(std::string method, std::string pattern, Endpoint endpoint, ErrorShape shape) {
  state_->endpoints.push_back({std::move(method), std::move(pattern), std::move(endpoint), std::move(shape)});
}

void Gateway::set_authenticator(std::unique_ptr<Authenticator> authenticator) {
  state_->core.authenticator = std::move(authenticator);
}

void Gateway::set_admission(std::unique_ptr<Admission> admission) { state_->core.admission = std::move(admission); }

void Gateway::mount(http::Router& router) {
  const auto add = [&](const std::string& method, const std::string& pattern, const http::Handler& handler) {
    router.add(method, pattern, handler);
    if (pattern.starts_with("/v1/")) router.add(method, std::string(kAlias) + pattern, handler);
  };
  for (const auto& route : state_->exchanges) {
    add(route.method, route.pattern,
        [state = state_, factory = route.factory](const http::Request& request,
                                                  const http::ResponseWriterPtr& writer) {
          serve(state->core, *factory(), request, nullptr, writer);
        });
  }
  for (const auto& route : state_->endpoints) {
    add(route.method, route.pattern,
        [state = state_, endpoint = route.endpoint, shape = route.shape](
            const http::Request& request, const http::ResponseWriterPtr& writer) {
          const auto caller = state->core.authenticator->authenticate(request);
          if (!caller) return writer->respond(with_id(request, shape(caller.error())));
          endpoint(request, *caller, writer);
        });
  }
  for (const std::string prefix : {"/v1/", "/openai/v1/"}) router.set_refusal(prefix, refuse_route);
}

Result<void> Gateway::perform(http::Request request, const CallerPtr& caller,
                              const http::ResponseWriterPtr& writer) {
  for (const auto& route : state_->exchanges) {
    if (route.method != request.method || route.pattern != request.target) continue;
    request.path = request.target;
    serve(state_->core, *route.factory(), std::move(request), caller, writer);
    return {};
  }
  return fail(Code::kNotFound, "there is nothing at {} {}", request.method, request.target);
}

void Gateway::cancel() { state_->core.client.cancel(); }

}  // namespace capstan::gateway

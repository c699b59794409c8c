// How: each route checks its query, asks the backend, and answers JSON. What can block long (following
// events, a worker's poll) waits in its handler's thread, in steps that notice a client's leaving.
#include "api/api.h"

#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>

#include "api/body.h"
#include "api/errors.h"
#include "api/logs.h"
#include "api/openapi.h"
#include "api/query.h"
#include "api/scheduling.h"
#include "base/build_id.h"
#include "base/sha256.h"
#include "base/text.h"
#include "controller/view.h"

namespace capstan::api {
namespace {

using http::Request;
using http::Response;
using http::ResponseWriterPtr;

constexpr std::int64_t kEventsDefault = 1000;
constexpr std::int64_t kEventsMax = 10'000;
constexpr int kFollowStepMs = 500;
constexpr std::array<std::string_view, 4> kKinds{"job", "service", "tasks", "sandbox"};
constexpr std::array<std::string_view, 8> kStates{"pending",    "starting",  "running", "stopping",
                                                  "restarting", "succeeded", "failed",  "cancelled"};

// "Bearer TOKEN" with exactly this token.
bool carries(const Request& request, const std::string& token) {
  const std::string value = request.headers.get("authorization");
  constexpr std::string_view kScheme = "Bearer ";
  return value.size() > kScheme.size() && to_lower(value.substr(0, kScheme.size())) == to_lower(kScheme) &&
         equal_constant_time(std::string_view(value).substr(kScheme.size()), token);
}

Response unauthorized(std::string_view which) {
  return to_response(
      Error{Code::kDenied,
            fmt::format("this needs the {} token of the data directory, as 'Authorization: Bearer …'", which),
            {}});
}

void answer(const ResponseWriterPtr& writer, const Result<Json>& result) {
  writer->respond(result ? Response::json(200, *result) : to_response(result.error()));
}

Result<std::string> one_of(const Request& request, std::string_view name,
                           std::span<const std::string_view> known) {
  const std::string value = request.query_value(name).value_or("");
  if (value.empty() || std::ranges::find(known, value) != known.end()) return value;
  return fail(Code::kInvalid, "'{}' cannot be '{}'; known are {}", name, value, fmt::join(known, ", "));
}

Result<controller::WorkloadFilter> filter_of(const Request& request) {
  controller::WorkloadFilter filter;
  CAPSTAN_TRY(filter.kind, one_of(request, "kind", kKinds));
  CAPSTAN_TRY(filter.state, one_of(request, "state", kStates));
  filter.label = request.query_value("label").value_or("");
  if (!filter.label.empty() && !filter.label.contains('=')) {
    return fail(Code::kInvalid, "'label' must be key=value, not '{}'", filter.label);
  }
  return filter;
}

Result<Json> list_workloads(Backend& backend, const Request& request) {
  CAPSTAN_TRY(const auto filter, filter_of(request));
  std::vector<Json> list;
  CAPSTAN_CHECK(
      backend.read([&](const controller::State& state) { list = controller::view_all(state, filter); }));
  return Json::object({{"workloads", Json(Json::Array(std::move(list)))}});
}

// Reads one workload by name and makes an answer of it.
Result<Json> of_workload(
    Backend& backend, const std::string& name,
    const std::function<Json(const controller::State&, const controller::Workload&)>& make) {
  Result<Json> result = fail(Code::kNotFound, "there is no workload '{}'", name);
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) {
    if (const auto* workload = state.find(name)) result = make(state, *workload);
  }));
  return result;
}

Result<Json> get_status(Backend& backend) {
  Json out = Json::object({{"version", kVersion}, {"build", build_id()}});
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) {
    out["epoch"] = state.epoch;
    out["events"] = state.event_last;
    out["hosts_joined"] = state.contacts.size();
    out["workloads"] = state.workloads.size();
    out["ranks_live"] = state.live_ranks;
    out["draining"] = state.draining;
  }));
  return out;
}

void apply(Backend& backend, const Request& request, const ResponseWriterPtr& writer) {
  workload::ParseOptions options{.source = request.query_value("source").value_or("spec.yaml"),
                                 .base_directory = request.query_value("base_dir").value_or("")};
  if (!options.base_directory.empty() && !options.base_directory.starts_with('/')) {
    return answer(writer, fail(Code::kInvalid, "'base_dir' must be an absolute path, not '{}'",
                               options.base_directory));
  }
  auto specs = workload::parse_specs(request.body, options);
  if (!specs) return writer->respond(to_response(specs.error()));
  answer(writer, backend.submit(controller::Apply{std::move(*specs),
                                                  request.query_value("dry_run").value_or("0") == "1"}));
}

Result<Json> list_events(Backend& backend, std::int64_t since, std::int64_t limit) {
  CAPSTAN_TRY(std::vector<Json> events, backend.events(since, limit));
  return Json::object({{"events", Json::Array(std::move(events))}});
}

}  // namespace

struct Api::State {
  Backend& backend;
  ApiOptions options;
  std::shared_ptr<prometheus::Registry> registry;  // shared with the gateway
  http::Client client;
  std::atomic<bool> leaving{false};
  std::atomic<int> followers{0};

  void follow_events(std::int64_t since, const ResponseWriterPtr& writer);
  void sync(const Request& request, const ResponseWriterPtr& writer);
  std::string metrics();
};

void Api::State::follow_events(std::int64_t since, const ResponseWriterPtr& writer) {
  if (++followers > kFollowersMax) {
    --followers;
    return answer(writer,
                  fail(Code::kExhausted, "{} clients follow events already; try again later", kFollowersMax));
  }
  writer->start(200, {{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}});
  // A comment at once, so that the client knows that it is connected; later ones find out whether it still
  // is.
  bool going = writer->write(": following\n\n");
  for (int silent_steps = 0; going && !leaving && !writer->client_gone();) {
    const auto events = backend.events(since, kEventsDefault);
    if (!events) break;
    for (const Json& event : *events) {
      since = event.get_int("seq").value_or(since);
      going = going && writer->write(http::sse_event(event.dump(), {}, std::to_string(since)));
    }
    if (!events->empty()) continue;
    going = going && backend.wait_for_event(since, kFollowStepMs);
    if (++silent_steps % 20 == 0) going = going && writer->write(": still here\n\n");
  }
  writer->finish();
  --followers;
}

void Api::State::sync(const Request& request, const ResponseWriterPtr& writer) {
  const auto body = Json::parse(request.body);
  if (!body) return answer(writer, std::unexpected(body.error()));
  auto decoded = protocol::SyncRequest::from_json(*body);
  if (!decoded) return answer(writer, std::unexpected(decoded.error()));
  const auto result = backend.sync(std::move(*decoded));
  if (!result) return answer(writer, std::unexpected(result.error()));
  answer(writer, result->to_json());
}

// Counts of the moment are taken when they are asked for; counters live in the registry.
std::string Api::State::metrics() {
  prometheus::Registry now;
  auto& workloads =
      prometheus::BuildGauge().Name("capstan_workloads").Help("Workloads by kind and state").Register(now);
  auto& ranks = prometheus::BuildGauge()
                    .Name("capstan_ranks_live")
                    .Help("Ranks, replicas and tasks that run")
                    .Register(now);
  auto& hosts = prometheus::BuildGauge().Name("capstan_hosts").Help("Hosts that joined").Register(now);
  auto& events =
      prometheus::BuildGauge().Name("capstan_events_total").Help("Events in the journal").Register(now);
  auto& epoch = prometheus::BuildGauge().Name("capstan_epoch").Help("Starts of the controller").Register(now);
  const auto read = backend.read([&](const controller::State& state) {
    for (const auto& [id, workload] : state.workloads) {
      workloads
          .Add({{"kind", std::string(workload::kind_name(workload.spec.kind))},
                {"state", std::string(controller::state_name(workload.state))}})
          .Increment();
    }
    ranks.Add({}).Set(static_cast<double>(state.live_ranks));
    hosts.Add({}).Set(static_cast<double>(state.inventory.hosts()));
    events.Add({}).Set(static_cast<double>(state.event_last));
    epoch.Add({}).Set(static_cast<double>(state.epoch));
  });
  auto families = registry->Collect();
  if (read) {
    for (auto& family : now.Collect()) families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

Api::Api(Backend& backend, ApiOptions options, std::shared_ptr<prometheus::Registry> registry)
    : state_(new State{backend, std::move(options), std::move(registry), {}, {}, {}}) {}
Api::~Api() = default;

void Api::mount(http::Router& router) {
  const auto state = state_;
  router.add_guard("/api/", [state](const Request& request) -> std::optional<Response> {
    if (request.path == "/api/v1/openapi.json" || carries(request, state->options.control_token))
      return std::nullopt;
    if (state->options.accounts && is_admin_key(*state->options.accounts, request)) return std::nullopt;
    return unauthorized("control");
  });
  router.add_guard("/worker/", [state](const Request& request) -> std::optional<Response> {
    if (carries(request, state->options.worker_token)) return std::nullopt;
    return unauthorized("worker");
  });
  const auto get = [&](std::string pattern, auto handler) {
    router.add("GET", std::move(pattern),
               [state, handler](const Request& request, const ResponseWriterPtr& writer) {
                 answer(writer, handler(*state, request));
               });
  };
  get("/api/v1/status", [](State& s, const Request&) { return get_status(s.backend); });
  get("/api/v1/workloads",
      [](State& s, const Request& request) { return list_workloads(s.backend, request); });
  get("/api/v1/workloads/{name}", [](State& s, const Request& request) {
    return of_workload(s.backend, request.param("name"), [](const auto& all, const auto& workload) {
      return controller::view(all, workload, true);
    });
  });
  get("/api/v1/workloads/{name}/explain", [](State& s, const Request& request) {
    return of_workload(s.backend, request.param("name"), &controller::explain);
  });
  get("/api/v1/openapi.json", [](State&, const Request&) -> Result<Json> { return openapi_document(); });

  router.add("POST", "/api/v1/apply", [state](const Request& request, const ResponseWriterPtr& writer) {
    apply(state->backend, request, writer);
  });
  router.add("POST", "/api/v1/workloads/{name}/cancel",
             [state](const Request& request, const ResponseWriterPtr& writer) {
               answer(writer, state->backend.submit(controller::Cancel{request.param("name")}));
             });
  router.add("POST", "/api/v1/workloads/{name}/scale",
             [state](const Request& request, const ResponseWriterPtr& writer) {
               Body body(request, 0);
               controller::Scale what{.name = request.param("name")};
               body.need("replicas", what.replicas);
               body.read("why", what.why);
               if (const auto read = body.finish(); !read) return answer(writer, std::unexpected(read.error()));
               answer(writer, state->backend.submit(std::move(what)));
             });
  router.add("GET", "/api/v1/workloads/{name}/logs",
             [state](const Request& request, const ResponseWriterPtr& writer) {
               LogRelay{state->backend, state->client, state->options.worker_token}(request, writer);
             });
  router.add("GET", "/api/v1/workloads/{name}/results",
             [state](const Request& request, const ResponseWriterPtr& writer) {
               ResultsRelay{state->backend, state->client, state->options.worker_token}(request, writer);
             });
  router.add("GET", "/api/v1/events", [state](const Request& request, const ResponseWriterPtr& writer) {
    const auto since = query_number(request, "since", 0);
    const auto limit = query_number(request, "limit", kEventsDefault);
    if (!since || !limit) return answer(writer, std::unexpected((since ? limit : since).error()));
    if (request.query_value("follow").value_or("0") != "1")
      return answer(writer, list_events(state->backend, *since, std::min(*limit, kEventsMax)));
    std::int64_t from = *since;
    if (!request.query_value("since")) {
      if (const auto read = state->backend.read([&](const controller::State& s) { from = s.event_last; });
          !read)
        return answer(writer, std::unexpected(read.error()));
    }
    state->follow_events(from, writer);
  });
  mount_scheduling(router, state->backend);
  if (state->options.accounts) mount_accounts(router, *state->options.accounts);
  router.add("POST", "/api/v1/shutdown", [state](const Request& request, const ResponseWriterPtr& writer) {
    const auto body = Json::parse(request.body.empty() ? "{}" : request.body);
    if (!body) return answer(writer, std::unexpected(body.error()));
    answer(writer, Json::object({{"accepted", true}}));
    state->backend.shutdown(body->get_bool("stop_ranks").value_or(false));
  });
  router.add("POST", "/worker/v1/sync", [state](const Request& request, const ResponseWriterPtr& writer) {
    state->sync(request, writer);
  });

  router.add("GET", "/healthz", [](const Request&, const ResponseWriterPtr& writer) {
    writer->respond(Response::text(200, "ok\n"));
  });
  router.add("GET", "/readyz", [state](const Request&, const ResponseWriterPtr& writer) {
    const auto ready = state->backend.ready();
    writer->respond(ready ? Response::text(200, "ready\n")
                          : Response::text(503, ready.error().message + "\n"));
  });
  router.add("GET", "/metrics", [state](const Request&, const ResponseWriterPtr& writer) {
    writer->respond(Response::text(200, state->metrics(), "text/plain; version=0.0.4; charset=utf-8"));
  });
}

void Api::cancel() {
  state_->leaving = true;
  state_->client.cancel();
}

}  // namespace capstan::api

// How it works: each route turns a request into one command or one view. YAML is parsed here, in the
// handler's thread, so that the controller only sees what is right in itself.
#include "api/scheduling.h"

#include <chrono>

#include "api/body.h"
#include "api/errors.h"
#include "api/query.h"
#include "api/scheduling_views.h"
#include "controller/view.h"
#include "workload/fleet_yaml.h"
#include "workload/tenant_yaml.h"

namespace capstan::api {
namespace {

using http::Request;
using http::ResponseWriterPtr;

constexpr std::int64_t kQueueDefault = 100;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void answer(const ResponseWriterPtr& writer, const Result<Json>& result) {
  writer->respond(result ? http::Response::json(200, *result) : to_response(result.error()));
}

std::string source_of(const Request& request, std::string_view otherwise) {
  return request.query_value("source").value_or(std::string(otherwise));
}

void apply_fleet(Backend& backend, const Request& request, const ResponseWriterPtr& writer) {
  auto spec = workload::parse_fleet(request.body, source_of(request, "fleet.yaml"));
  if (!spec) return writer->respond(to_response(spec.error()));
  const bool present = request.query_value("present").value_or("0") == "1";
  answer(writer, backend.submit(controller::ApplyFleet{*std::move(spec), present}));
}

void apply_tenants(Backend& backend, const Request& request, const ResponseWriterPtr& writer) {
  auto tenants = workload::parse_tenants(request.body, source_of(request, "tenants.yaml"));
  if (!tenants) return writer->respond(to_response(tenants.error()));
  answer(writer, backend.submit(controller::SetTenants{*std::move(tenants)}));
}

// Without a filter: those whose workers have called first.
Result<Json> list_hosts(Backend& backend, const Request& request) {
  HostFilter filter;
  filter.unavailable = request.query_value("unavailable").value_or("0") == "1";
  filter.under = request.query_value("under").value_or("");
  CAPSTAN_TRY(const std::int64_t limit, query_number(request, "limit", filter.limit));
  filter.limit = std::min<std::int64_t>(limit, controller::kHostsShownMax);
  const bool all = !filter.unavailable && filter.under.empty();
  Result<Json> out = Json();
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) {
    out = all ? Json::object({{"hosts", controller::view_hosts(state)}, {"matched", state.inventory.hosts()}})
              : hosts_view(state, filter);
  }));
  return out;
}

Result<Json> set_condition(Backend& backend, const Request& request) {
  controller::SetCondition command;
  CAPSTAN_TRY(command.verb, controller::parse_verb(request.param("verb")));
  Body body(request, now_ms());
  body.need("names", command.names);
  body.read("gpus", command.gpus);
  body.read("why", command.why);
  CAPSTAN_CHECK(body.finish());
  return backend.submit(std::move(command));
}

Result<Json> maintain(Backend& backend, const Request& request) {
  controller::Maintain command;
  const std::int64_t now = command.from_ms = now_ms();
  Body body(request, now);
  body.need("names", command.names);
  body.read_time("from", command.from_ms);
  body.need_time("until", command.until_ms);
  CAPSTAN_CHECK(body.finish());
  return backend.submit(std::move(command));
}

Result<Json> reserve(Backend& backend, const Request& request) {
  controller::Reserve command;
  const std::int64_t now = command.from_ms = now_ms();
  Body body(request, now);
  body.need("name", command.name);
  body.need("tenant", command.tenant);
  body.need("hosts", command.hosts);
  body.read("per_ultraserver", command.per_domain);
  body.read("gpu_model", command.gpu_model);
  body.read("host_class", command.host_class);
  body.read("cluster", command.cluster);
  body.read_time("from", command.from_ms);
  body.need_time("until", command.until_ms);
  CAPSTAN_CHECK(body.finish());
  return backend.submit(std::move(command));
}

Result<Json> defragment(Backend& backend, const Request& request) {
  controller::Defragment command;
  Body body(request, now_ms());
  body.read("dry_run", command.dry_run);
  body.read("moves_max", command.moves_max);
  CAPSTAN_CHECK(body.finish());
  return backend.submit(std::move(command));
}

Result<Json> set_policy(Backend& backend, const Request& request) {
  controller::SetPolicy command;
  Body body(request, now_ms());
  body.read("order", command.order);
  body.read_duration("starvation", command.starvation_ms);
  CAPSTAN_CHECK(body.finish());
  return backend.submit(std::move(command));
}

Result<Json> list_reservations(Backend& backend, const Request&) {
  Json out;
  CAPSTAN_CHECK(
      backend.read([&](const controller::State& state) { out = reservations_view(state, now_ms()); }));
  return out;
}

Result<Json> list_queue(Backend& backend, const Request& request) {
  CAPSTAN_TRY(const std::int64_t limit, query_number(request, "limit", kQueueDefault));
  Json out;
  CAPSTAN_CHECK(backend.read(
      [&](const controller::State& state) { out = queue_view(state, std::min(limit, kQueueShownMax)); }));
  return out;
}

// A view of the whole state.
template <Json (*view)(const controller::State&)>
Result<Json> look(Backend& backend, const Request&) {
  Json out;
  CAPSTAN_CHECK(backend.read([&](const controller::State& state) { out = view(state); }));
  return out;
}

}  // namespace

void mount_scheduling(http::Router& router, Backend& backend) {
  const auto add = [&](std::string method, std::string pattern,
                       Result<Json> (*handler)(Backend&, const Request&)) {
    router.add(std::move(method), std::move(pattern),
               [&backend, handler](const Request& request, const ResponseWriterPtr& writer) {
                 answer(writer, handler(backend, request));
               });
  };
  router.add("POST", "/api/v1/fleet", [&backend](const Request& request, const ResponseWriterPtr& writer) {
    apply_fleet(backend, request, writer);
  });
  router.add("POST", "/api/v1/tenants", [&backend](const Request& request, const ResponseWriterPtr& writer) {
    apply_tenants(backend, request, writer);
  });
  add("GET", "/api/v1/fleet", &look<fleet_view>);
  add("GET", "/api/v1/hosts", &list_hosts);
  add("POST", "/api/v1/hosts/{verb}", &set_condition);
  add("POST", "/api/v1/maintenance", &maintain);
  add("GET", "/api/v1/tenants", &look<tenants_view>);
  add("POST", "/api/v1/tenants/{name}/remove", [](Backend& b, const Request& request) {
    return b.submit(controller::RemoveTenant{request.param("name")});
  });
  add("GET", "/api/v1/reservations", &list_reservations);
  add("POST", "/api/v1/reservations", &reserve);
  add("POST", "/api/v1/reservations/{name}/remove", [](Backend& b, const Request& request) {
    return b.submit(controller::Unreserve{request.param("name")});
  });
  add("GET", "/api/v1/queue", &list_queue);
  add("POST", "/api/v1/defragment", &defragment);
  add("GET", "/api/v1/policy", &look<policy_view>);
  add("POST", "/api/v1/policy", &set_policy);
}

}  // namespace capstan::api

#include "api/openapi.h"

#include <string>
#include <string_view>
#include <vector>

#include "api/openapi_routes.h"
#include "base/build_id.h"

namespace capstan::api {
namespace {

struct Parameter {
  std::string_view name;
  std::string_view in;  // "path" or "query"
  std::string_view type;
  std::string_view description;
};

struct Operation {
  std::string_view method;
  std::string_view path;
  std::string_view id;
  std::string_view summary;
  std::vector<Parameter> parameters;
  std::string_view body;    // media type of the request's body; empty: none
  std::string_view answer;  // media type of a 200
  std::string_view schema;  // of a JSON answer
  bool token = true;
};

const Parameter kName{"name", "path", "string", "the workload's name"};

const std::vector<Operation> kOperations = {
    {"get",
     "/api/v1/status",
     "getStatus",
     "Capstan itself: version, epoch, counts",
     {},
     "",
     "application/json",
     "Status"},
    {"get",
     "/api/v1/hosts",
     "listHosts",
     "Hosts with their capacity, health, and what they can enforce",
     {{"unavailable", "query", "integer", "1: only those that take no new work"},
      {"under", "query", "string", "only of this region, cluster, cluster/block or UltraServer"},
      {"limit", "query", "integer", "with a filter: at most so many; default 1000"}},
     "",
     "application/json",
     "HostList"},
    {"post",
     "/api/v1/apply",
     "apply",
     "Start or change what a spec file says; all documents are checked before any is applied",
     {{"source", "query", "string", "the file's name, for messages"},
      {"base_dir", "query", "string", "absolute directory that relative paths of the spec are relative to"},
      {"dry_run", "query", "integer", "1: say what would change, change nothing"}},
     "application/yaml",
     "application/json",
     "ApplyResult"},
    {"get",
     "/api/v1/workloads",
     "listWorkloads",
     "Workloads, newest last",
     {{"kind", "query", "string", "job, service, tasks or sandbox"},
      {"state", "query", "string", "pending, running, …"},
      {"label", "query", "string", "key=value"}},
     "",
     "application/json",
     "WorkloadList"},
    {"get",
     "/api/v1/workloads/{name}",
     "getWorkload",
     "One workload with its spec and ranks",
     {kName},
     "",
     "application/json",
     "Workload"},
    {"post",
     "/api/v1/workloads/{name}/cancel",
     "cancelWorkload",
     "Stop it for good, gracefully",
     {kName},
     "",
     "application/json",
     "Accepted"},
    {"post",
     "/api/v1/workloads/{name}/scale",
     "scaleService",
     "So many replicas of a service from now on: {\"replicas\": 3, \"why\": \"…\"}",
     {kName},
     "application/json",
     "application/json",
     "Accepted"},
    {"get",
     "/api/v1/workloads/{name}/explain",
     "explainWorkload",
     "Why it waits, or what it does",
     {kName},
     "",
     "application/json",
     "Explanation"},
    {"get",
     "/api/v1/workloads/{name}/results",
     "getResults",
     "What tasks in sandboxes gave: a JSON object a line, in the order in which they ended",
     {kName},
     "",
     "application/jsonl",
     ""},
    {"get",
     "/api/v1/workloads/{name}/logs",
     "getLogs",
     "What a rank wrote to its standard output and error",
     {kName,
      {"rank", "query", "integer", "rank, replica or task; default 0"},
      {"attempt", "query", "integer", "default: the latest"},
      {"tail", "query", "integer", "only the last bytes"},
      {"follow", "query", "integer", "1: go on until the rank ends"}},
     "",
     "text/plain",
     ""},
    {"get",
     "/api/v1/events",
     "listEvents",
     "What happened, in order; with follow=1 as server-sent events whose data is an Event",
     {{"since", "query", "integer", "only events after this number"},
      {"limit", "query", "integer", "at most so many; default 1000"},
      {"follow", "query", "integer", "1: go on as it happens"}},
     "",
     "application/json",
     "EventList"},
    {"get",
     "/api/v1/fleet",
     "getFleet",
     "Regions, clusters and spine blocks with what is free in each",
     {},
     "",
     "application/json",
     "Fleet"},
    {"post",
     "/api/v1/fleet",
     "applyFleet",
     "Add the hosts that a fleet file describes",
     {{"source", "query", "string", "the file's name, for messages"},
      {"present", "query", "integer", "1: the hosts work at once, without workers (planning, simulation)"}},
     "application/yaml",
     "application/json",
     "Done"},
    {"post",
     "/api/v1/hosts/{verb}",
     "setHostCondition",
     "Of hosts or whole UltraServers {names, why}, or of GPUs of one host {names, gpus, why}",
     {{"verb", "path", "string", "cordon, uncordon, drain, fail, repair or return"}},
     "application/json",
     "application/json",
     "Done"},
    {"get",
     "/api/v1/tenants",
     "listTenants",
     "Tenants, what they hold, and their shares",
     {},
     "",
     "application/json",
     "TenantList"},
    {"post",
     "/api/v1/tenants",
     "setTenants",
     "Add or change the tenants of a file; all or none",
     {{"source", "query", "string", "the file's name, for messages"}},
     "application/yaml",
     "application/json",
     "Done"},
    {"post",
     "/api/v1/tenants/{name}/remove",
     "removeTenant",
     "Remove one that holds nothing",
     {{"name", "path", "string", "the tenant's name"}},
     "",
     "application/json",
     "Done"},
    {"get",
     "/api/v1/queue",
     "getQueue",
     "Who waits, in order, and why",
     {{"limit", "query", "integer", "at most so many; default 100"}},
     "",
     "application/json",
     "Queue"},
    {"get",
     "/api/v1/reservations",
     "listReservations",
     "What is kept for whom, and when",
     {},
     "",
     "application/json",
     "ReservationList"},
    {"post",
     "/api/v1/reservations",
     "reserve",
     "Keep hosts {name, tenant, hosts, per_ultraserver, gpu_model, host_class, cluster, from, until}",
     {},
     "application/json",
     "application/json",
     "Done"},
    {"post",
     "/api/v1/reservations/{name}/remove",
     "unreserve",
     "Give them back; also ends a window of maintenance, by the first name that it was given",
     {{"name", "path", "string", "the reservation's name"}},
     "",
     "application/json",
     "Done"},
    {"post",
     "/api/v1/maintenance",
     "maintain",
     "Keep hosts free of work {names, from, until}",
     {},
     "application/json",
     "application/json",
     "Done"},
    {"post",
     "/api/v1/defragment",
     "defragment",
     "Moves of preemptible work that free UltraServers {dry_run, moves_max}",
     {},
     "application/json",
     "application/json",
     "Plan"},
    {"get", "/api/v1/policy", "getPolicy", "The order of the queue", {}, "", "application/json", "Policy"},
    {"post",
     "/api/v1/policy",
     "setPolicy",
     "Change the order of the queue, or how long a gang may wait before room is kept for it",
     {},
     "application/json",
     "application/json",
     "Policy"},
    {"post",
     "/api/v1/shutdown",
     "shutdown",
     "Leave; with stop_ranks all ranks are stopped first, gracefully, and resume at the next start",
     {},
     "application/json",
     "application/json",
     "Accepted"},
    {"get", "/api/v1/openapi.json", "getOpenApi", "This document", {}, "", "application/json", "", false},
    {"get", "/healthz", "healthz", "The process lives", {}, "", "text/plain", "", false},
    {"get", "/readyz", "readyz", "Commands are accepted; 503 says why not", {}, "", "text/plain", "", false},
    {"get", "/metrics", "metrics", "Prometheus text", {}, "", "text/plain", "", false},
};

Json content(std::string_view media, std::string_view schema) {
  Json out = Json::object();
  out[media] =
      schema.empty()
          ? Json::object()
          : Json::object(
                {{"schema", Json::object({{"$ref", "#/components/schemas/" + std::string(schema)}})}});
  return out;
}

Json describe(const Operation& operation) {
  Json out = Json::object(
      {{"operationId", operation.id}, {"summary", operation.summary}, {"parameters", Json::array()}});
  for (const Parameter& parameter : operation.parameters) {
    out["parameters"].push_back(Json::object({{"name", parameter.name},
                                              {"in", parameter.in},
                                              {"required", parameter.in == "path"},
                                              {"description", parameter.description},
                                              {"schema", Json::object({{"type", parameter.type}})}}));
  }
  if (!operation.body.empty()) out["requestBody"] = Json::object({{"content", content(operation.body, "")}});
  out["responses"] = Json::object(
      {{"200",
        Json::object({{"description", "done"}, {"content", content(operation.answer, operation.schema)}})},
       {"default", Json::object({{"description", "refused or failed"},
                                 {"content", content("application/json", "Error")}})}});
  out["security"] = operation.token ? Json::array({Json::object({{"token", Json::array()}})}) : Json::array();
  return out;
}

}  // namespace

Json openapi_document() {
  Json paths = Json::object();
  for (const Operation& operation : kOperations)
    paths[operation.path][operation.method] = describe(operation);
  add_account_and_inference_routes(paths);
  return Json::object(
      {{"openapi", "3.1.0"},
       {"info", Json::object({{"title", "Capstan control API"}, {"version", kVersion}})},
       {"paths", std::move(paths)},
       {"components",
        Json::object(
            {{"schemas", openapi_schemas()},
             {"securitySchemes",
              Json::object({{"token", Json::object({{"type", "http"}, {"scheme", "bearer"}})}})}})}});
}

}  // namespace capstan::api

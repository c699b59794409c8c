// How it works: a schema an object that the API answers, as JSON built once per request of the document.
#include <initializer_list>
#include <string>

#include "api/openapi.h"

namespace capstan::api {
namespace {

Json property(std::string_view type) { return Json::object({{"type", type}}); }
Json list_of(std::string_view schema) {
  return Json::object({{"type", "array"},
                       {"items", Json::object({{"$ref", "#/components/schemas/" + std::string(schema)}})}});
}
Json object_of(std::initializer_list<Json::Member> properties) {
  return Json::object({{"type", "object"}, {"properties", Json::object(properties)}});
}

Json workload_schemas() {
  const Json text = property("string");
  const Json number = property("integer");
  const Json anything = property("object");
  return Json::object({
      {"Error", object_of({{"error", object_of({{"code", text},
                                                {"message", text},
                                                {"field", text},
                                                {"hint", text},
                                                {"diagnostics", list_of("Diagnostic")}})}})},
      {"Diagnostic",
       object_of({{"file", text}, {"line", number}, {"column", number}, {"message", text}, {"hint", text}})},
      {"Workload", object_of({{"id", number},
                              {"name", text},
                              {"kind", text},
                              {"tenant", text},
                              {"priority", number},
                              {"labels", anything},
                              {"state", text},
                              {"reason", text},
                              {"ready", number},
                              {"wanted", number},
                              {"attempt", number},
                              {"restarts_used", number},
                              {"created_ms", number},
                              {"ended_ms", number},
                              {"spec", anything},
                              {"ranks", list_of("Rank")}})},
      {"Rank", object_of({{"rank", number},
                          {"attempt", number},
                          {"state", text},
                          {"ready", property("boolean")},
                          {"host", text},
                          {"pid", number},
                          {"port", number},
                          {"exit_code", number},
                          {"signal", number},
                          {"message", text}})},
      {"WorkloadList", object_of({{"workloads", list_of("Workload")}})},
      {"Host", object_of({{"name", text},
                          {"health", text},
                          {"milli_cpus", number},
                          {"milli_cpus_free", number},
                          {"memory_bytes", number},
                          {"gpus", number}})},
      {"HostList", object_of({{"hosts", list_of("Host")}})},
      {"Change", object_of({{"path", text}, {"from", text}, {"to", text}})},
      {"Applied", object_of({{"kind", text},
                             {"name", text},
                             {"action", text},
                             {"changes", list_of("Change")},
                             {"restarts", text}})},
      {"ApplyResult", object_of({{"results", list_of("Applied")}})},
      {"Explanation", object_of({{"text", text}})},
      {"Event", object_of({{"seq", number}, {"time_ms", number}, {"type", text}})},
      {"EventList", object_of({{"events", list_of("Event")}})},
      {"Status", object_of({{"version", text}, {"build", text}, {"epoch", number}})},
      {"Accepted", object_of({{"accepted", property("boolean")}})},
  });
}

Json fleet_schemas() {
  const Json text = property("string");
  const Json number = property("integer");
  const Json anything = property("object");
  return Json::object({
      {"Place", object_of({{"name", text},
                           {"hosts", number},
                           {"hosts_free", number},
                           {"ultraservers", number},
                           {"ultraservers_free", number},
                           {"gpus", number},
                           {"gpus_free", number},
                           {"gpus_failed", number},
                           {"milli_cpus", number},
                           {"milli_cpus_free", number},
                           {"unavailable", anything},
                           {"clusters", list_of("Place")},
                           {"blocks", list_of("Place")}})},
      {"Fleet",
       object_of({{"total", anything}, {"regions", list_of("Place")}, {"classes", list_of("HostClass")}})},
      {"HostClass", object_of({{"name", text},
                               {"hosts", number},
                               {"gpu_model", text},
                               {"gpus", number},
                               {"milli_cpus", number},
                               {"memory_bytes", number},
                               {"shared_gpus", property("boolean")}})},
      {"Tenant", object_of({{"name", text},
                            {"parent", text},
                            {"depth", number},
                            {"weight", number},
                            {"guaranteed", anything},
                            {"limit", anything},
                            {"used", anything},
                            {"borrowed", anything},
                            {"share", property("number")},
                            {"waiting", number}})},
      {"TenantList", object_of({{"tenants", list_of("Tenant")}})},
      {"Waiting", object_of({{"position", number},
                             {"name", text},
                             {"kind", text},
                             {"tenant", text},
                             {"share", property("number")},
                             {"priority", number},
                             {"ranks", number},
                             {"gpus_each", number},
                             {"segment", number},
                             {"created_ms", number},
                             {"decision", text},
                             {"reason", text}})},
      {"Queue", object_of({{"order", text}, {"waiting", number}, {"workloads", list_of("Waiting")}})},
      {"Reservation", object_of({{"name", text},
                                 {"kind", text},
                                 {"tenant", text},
                                 {"hosts", number},
                                 {"from_ms", number},
                                 {"until_ms", number},
                                 {"state", text}})},
      {"ReservationList", object_of({{"reservations", list_of("Reservation")}})},
      {"Plan", object_of({{"moves", Json::object({{"type", "array"}})}})},
      {"Policy", object_of({{"order", text}, {"starvation_ms", number}})},
      {"Done", anything},
  });
}

}  // namespace

Json openapi_schemas() {
  Json out = workload_schemas();
  Json fleet = fleet_schemas();
  for (auto& [name, schema] : fleet.members()) out[name] = std::move(schema);
  return out;
}

}  // namespace capstan::api

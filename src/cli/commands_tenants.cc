// tenants, reservations, queue, policy: who may use the fleet, and in which order.
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "cli/format.h"
#include "cli/scheduling_commands.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string amounts_of(const Json& json, std::string_view key, std::string_view nothing) {
  const Json* amounts = json.find(key);
  return amounts == nullptr ? std::string(nothing) : format_amounts(*amounts, nothing);
}

void print_tenants(const Json& answer) {
  Table table({"TENANT", "WEIGHT", "SHARE", "USED", "BORROWED", "GUARANTEED", "LIMIT", "WAITING"});
  for (const Json& tenant : list_of(answer, "tenants")) {
    std::string guaranteed = amounts_of(tenant, "guaranteed", "");
    for (const Json& cell : list_of(tenant, "cells")) {
      guaranteed +=
          fmt::format("{}{} cells of {} {} trays", guaranteed.empty() ? "" : ", ", number_of(cell, "count"),
                      number_of(cell, "trays"), text_of(cell, "gpu_model"));
    }
    const auto depth = static_cast<std::size_t>(std::clamp<std::int64_t>(number_of(tenant, "depth"), 0, 64));
    table.add({std::string(depth * 2, ' ') + text_of(tenant, "name"),
               std::to_string(number_of(tenant, "weight")), format_percent(tenant, "share"),
               amounts_of(tenant, "used", "-"), amounts_of(tenant, "borrowed", "-"),
               guaranteed.empty() ? "-" : guaranteed,
               tenant.get_bool("borrow").value_or(true) ? amounts_of(tenant, "limit", "-") : "its guarantee",
               std::to_string(number_of(tenant, "waiting"))});
  }
  fmt::print("{}", table.text());
}

// "64 × 4 gpus", "1000 tasks".
std::string size_of(const Json& entry) {
  const std::int64_t ranks = number_of(entry, "ranks");
  const std::int64_t milli_gpus = number_of(entry, "gpus_each") * 1000 + number_of(entry, "gpu_milli_each");
  std::string text = std::to_string(ranks);
  if (milli_gpus > 0)
    text += fmt::format(" × {} {}", format_cpus(milli_gpus), milli_gpus <= 1000 ? "gpu" : "gpus");
  return text;
}

void print_queue(const Json& answer) {
  Table table({"#", "NAME", "KIND", "SIZE", "TENANT", "SHARE", "PRIORITY", "WAITS", "WHY"});
  for (const Json& entry : list_of(answer, "workloads")) {
    std::string why = text_of(entry, "reason");
    why = why.substr(0, why.find('\n'));
    if (text_of(entry, "decision") == "never") why = "never: " + why;
    if (why.empty()) why = "see: capstan explain " + text_of(entry, "name");
    table.add({std::to_string(number_of(entry, "position")), text_of(entry, "name"), text_of(entry, "kind"),
               size_of(entry), text_of(entry, "tenant"), format_percent(entry, "share"),
               std::to_string(number_of(entry, "priority")),
               format_age(now_ms() - number_of(entry, "created_ms")), why});
  }
  const auto shown = static_cast<std::int64_t>(list_of(answer, "workloads").size());
  const std::int64_t waiting = number_of(answer, "waiting");
  if (shown > 0) fmt::print("{}", table.text());
  fmt::print("{} {} in order {}", waiting, waiting == 1 ? "waits" : "wait", text_of(answer, "order"));
  fmt::print("{}\n", shown < waiting ? fmt::format("; the first {} are shown (--limit)", shown) : "");
}

void print_reservations(const Json& answer) {
  Table table({"NAME", "KIND", "TENANT", "HOSTS", "FROM", "UNTIL", "STATE"});
  for (const Json& one : list_of(answer, "reservations")) {
    const std::int64_t until_ms = number_of(one, "until_ms");
    table.add({text_of(one, "name"), text_of(one, "kind"), text_of(one, "tenant"),
               std::to_string(number_of(one, "hosts")), format_time(number_of(one, "from_ms")),
               until_ms == INT64_MAX ? "it has started" : format_time(until_ms), text_of(one, "state")});
  }
  fmt::print("{}", table.text());
}

// The same POST for each name; the last exit code that is not 0.
int for_each_name(const Globals& globals, const std::vector<std::string>& names, std::string_view path,
                  std::string_view done) {
  int exit_code = kOk;
  for (const std::string& name : names) {
    const auto answer = request(globals, fmt::format("{}/{}/remove", path, url_encode(name)), Json::object());
    const int code = show(globals, answer, [&](const Json&) { fmt::print("{} {}\n", name, done); });
    if (code != kOk) exit_code = code;
  }
  return exit_code;
}

}  // namespace

int tenants_apply(const Globals& globals, const std::string& file) {
  return show(globals, post_yaml(globals, "/api/v1/tenants", file), [](const Json& json) {
    const std::int64_t tenants = number_of(json, "tenants");
    fmt::print("{} {} set\n", tenants, tenants == 1 ? "tenant" : "tenants");
    for (const Json& warning : list_of(json, "warnings"))
      fmt::print(stderr, "capstan: {}\n", warning.is_string() ? warning.as_string() : "");
  });
}

int tenants_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/tenants"), &print_tenants);
}

int tenants_remove(const Globals& globals, const std::vector<std::string>& names) {
  return for_each_name(globals, names, "/api/v1/tenants", "removed");
}

int reserve(const Globals& globals, const ReserveOptions& options) {
  Json body = Json::object({{"name", options.name},
                            {"tenant", options.tenant},
                            {"hosts", options.hosts},
                            {"from", options.from},
                            {"until", options.until}});
  if (options.per_ultraserver > 0) body["per_ultraserver"] = options.per_ultraserver;
  for (const auto& [key, value] : {std::pair("gpu_model", options.gpu_model),
                                   {"host_class", options.host_class},
                                   {"cluster", options.cluster}}) {
    if (!value.empty()) body[key] = value;
  }
  return show(globals, request(globals, "/api/v1/reservations", body), [&](const Json& json) {
    const std::size_t hosts = list_of(json, "hosts").size();
    fmt::print("{}: {} {} for tenant {} from {} until {}\nuse with  placement: {{reservation: {}}}\n",
               options.name, hosts, hosts == 1 ? "host" : "hosts", options.tenant,
               format_time(number_of(json, "from_ms")), format_time(number_of(json, "until_ms")),
               options.name);
  });
}

int reservations(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/reservations"), &print_reservations);
}

int unreserve(const Globals& globals, const std::vector<std::string>& names) {
  return for_each_name(globals, names, "/api/v1/reservations", "given back");
}

int queue(const Globals& globals, const QueueOptions& options) {
  return show(globals, request(globals, fmt::format("/api/v1/queue?limit={}", options.limit)), &print_queue);
}

int policy(const Globals& globals, const PolicyOptions& options) {
  Json body = Json::object();
  if (!options.order.empty()) {
    std::string order = options.order;
    std::ranges::replace(order, '_', '-');
    body["order"] = order;
  }
  if (!options.starvation.empty()) body["starvation"] = options.starvation;
  const bool ask = body.size() == 0;
  return show(globals, ask ? request(globals, "/api/v1/policy") : request(globals, "/api/v1/policy", body),
              [](const Json& json) {
                fmt::print(
                    "order       {}\nstarvation  {}: a gang that waits so long gets room kept for it\n",
                    text_of(json, "order"), format_age(number_of(json, "starvation_ms")));
              });
}

}  // namespace capstan::cli

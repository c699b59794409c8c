// get, describe, explain, cancel, status: what there is and how it fares.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

#include "cli/commands.h"
#include "cli/events.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

constexpr std::string_view kWorkloads = "/api/v1/workloads";

long long now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string text_or(const Json& json, std::string_view key, std::string_view otherwise = "") {
  return json.get_string(key).value_or(std::string(otherwise));
}

std::string age_of(const Json& json, std::string_view key) {
  const auto at = json.get_int(key);
  return at && *at > 0 ? format_age(now_ms() - *at) : "";
}

// "2/2" ranks running, "1/1" replicas ready, "40/100" tasks ended.
std::string progress_of(const Json& workload) {
  const auto ready = workload.get_int("ready");
  const auto wanted = workload.get_int("wanted");
  if (!ready || !wanted) return "";
  return fmt::format("{}/{}", *ready, *wanted);
}

std::vector<std::string> row_of(const Json& workload) {
  return {text_or(workload, "name"),
          text_or(workload, "kind"),
          text_or(workload, "state"),
          progress_of(workload),
          std::to_string(workload.get_int("attempt").value_or(0)),
          age_of(workload, "created_ms"),
          text_or(workload, "reason")};
}

const std::vector<std::string> kColumns{"NAME", "KIND", "STATE", "READY", "ATTEMPT", "AGE", "REASON"};

std::string query_of(const GetOptions& options) {
  std::string query = "?";
  for (const auto& [key, value] :
       {std::pair("kind", options.kind), {"state", options.state}, {"label", options.label}}) {
    if (!value.empty()) query += fmt::format("{}={}&", key, url_encode(value));
  }
  query.pop_back();
  return query;
}

Result<std::vector<Json>> fetch(ApiClient& api, const GetOptions& options) {
  if (!options.name.empty()) {
    CAPSTAN_TRY(Json one, api.get(fmt::format("{}/{}", kWorkloads, url_encode(options.name))));
    return std::vector<Json>{std::move(one)};
  }
  CAPSTAN_TRY(Json answer, api.get(fmt::format("{}{}", kWorkloads, query_of(options))));
  const Json* items = answer.find("workloads");
  return items != nullptr && items->is_array() ? items->items() : std::vector<Json>{};
}

void print(const Globals& globals, const GetOptions& options, const std::vector<Json>& workloads) {
  if (options.names) {
    for (const Json& workload : workloads) fmt::print("{}\n", text_or(workload, "name"));
  } else if (globals.json()) {
    if (options.name.empty()) {
      fmt::print("{}\n", Json::object({{"workloads", Json(Json::Array(workloads))}}).pretty());
    } else {
      fmt::print("{}\n", workloads.front().pretty());
    }
  } else {
    Table table(kColumns);
    for (const Json& workload : workloads) table.add(row_of(workload));
    fmt::print("{}", table.text());
  }
  std::fflush(stdout);
}

// Prints a row whenever it changed; ages are left out of the comparison.
int follow(const Globals& globals, const GetOptions& options, ApiClient& api,
           const std::vector<Json>& first) {
  std::map<std::string, std::string> shown;
  const auto signature = [](const Json& workload) {
    return fmt::format("{}|{}|{}|{}", text_or(workload, "state"), progress_of(workload),
                       workload.get_int("attempt").value_or(0), text_or(workload, "reason"));
  };
  for (const Json& workload : first) shown[text_or(workload, "name")] = signature(workload);
  const auto on_event = [&](const Json&) {
    const auto now = fetch(api, options);
    if (!now) return true;  // a workload may be gone for a moment; the stream itself says when Capstan leaves
    for (const Json& workload : *now) {
      std::string& last = shown[text_or(workload, "name")];
      const std::string current = signature(workload);
      if (last == current) continue;
      last = current;
      if (globals.json()) {
        fmt::print("{}\n", workload.dump());
      } else {
        fmt::print("{}\n", fmt::join(row_of(workload), "  "));
      }
    }
    std::fflush(stdout);
    return true;
  };
  const auto result = follow_events(api, -1, on_event);
  return result ? kOk : report(result.error());
}

void print_field(std::string_view name, const std::string& value) {
  if (!value.empty()) fmt::print("{:<14}{}\n", name, value);
}

void print_ranks(const Json& workload) {
  const Json* ranks = workload.find("ranks");
  if (ranks == nullptr || !ranks->is_array() || ranks->size() == 0) return;
  Table table({"RANK", "STATE", "HOST", "PID", "PORT", "EXIT", "MESSAGE"});
  const auto number = [](const Json& rank, std::string_view key) {
    const auto value = rank.get_int(key);
    return value ? std::to_string(*value) : std::string();
  };
  for (const Json& rank : ranks->items()) {
    std::string exit = number(rank, "exit_code");
    if (const auto signal = rank.get_int("signal"); signal && *signal > 0)
      exit = fmt::format("signal {}", *signal);
    table.add({number(rank, "rank"), text_or(rank, "state"), text_or(rank, "host"), number(rank, "pid"),
               number(rank, "port"), exit, text_or(rank, "message")});
  }
  fmt::print("\n{}", table.text());
}

}  // namespace

int get(const Globals& globals, const GetOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const auto workloads = fetch(*api, options);
  if (!workloads) return report(workloads.error());
  print(globals, options, *workloads);
  return options.follow ? follow(globals, options, *api, *workloads) : kOk;
}

int describe(const Globals& globals, const std::string& name) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const auto answer = api->get(fmt::format("{}/{}", kWorkloads, url_encode(name)));
  if (!answer) return report(answer.error());
  const Json& workload = *answer;
  if (globals.json()) {
    fmt::print("{}\n", workload.pretty());
    return kOk;
  }
  print_field("name", text_or(workload, "name"));
  print_field("kind", text_or(workload, "kind"));
  print_field("state", text_or(workload, "state"));
  print_field("reason", text_or(workload, "reason"));
  print_field("ready", progress_of(workload));
  print_field("attempt", std::to_string(workload.get_int("attempt").value_or(0)));
  print_field("restarts", std::to_string(workload.get_int("restarts_used").value_or(0)));
  print_field("created",
              age_of(workload, "created_ms").empty() ? "" : age_of(workload, "created_ms") + " ago");
  if (const Json* spec = workload.find("spec")) {
    fmt::print("\nspec\n");
    for (const auto& [key, value] : spec->members()) {
      if (key == "kind" || key == "name") continue;
      fmt::print("  {:<14}{}\n", key, value.is_string() ? value.as_string() : value.dump());
    }
  }
  print_ranks(workload);
  return kOk;
}

int explain(const Globals& globals, const std::string& name) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const auto answer = api->get(fmt::format("{}/{}/explain", kWorkloads, url_encode(name)));
  if (!answer) return report(answer.error());
  if (globals.json()) {
    fmt::print("{}\n", answer->pretty());
  } else {
    fmt::print("{}\n", text_or(*answer, "text"));
  }
  return kOk;
}

int cancel(const Globals& globals, const std::vector<std::string>& names) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  int exit_code = kOk;
  for (const std::string& name : names) {
    const auto answer = api->post(fmt::format("{}/{}/cancel", kWorkloads, url_encode(name)), "{}");
    if (!answer) {
      exit_code = report(answer.error());
    } else if (globals.json()) {
      fmt::print("{}\n", answer->pretty());
    } else {
      fmt::print("{}: cancelling\n", name);
    }
  }
  return exit_code;
}

int scale(const Globals& globals, const ScaleOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const Json body = Json::object({{"replicas", options.replicas}, {"why", "by hand"}});
  const auto answer = api->post(fmt::format("{}/{}/scale", kWorkloads, url_encode(options.name)), body.dump());
  if (!answer) return report(answer.error());
  if (globals.json()) {
    fmt::print("{}\n", answer->pretty());
  } else {
    fmt::print("{}: {} replicas (from {})\n", options.name, options.replicas, answer->get_int("from").value_or(0));
  }
  return kOk;
}

int status(const Globals& globals) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const auto answer = api->get("/api/v1/status");
  if (!answer) return report(answer.error());
  const auto hosts = api->get("/api/v1/hosts");
  if (!hosts) return report(hosts.error());
  if (globals.json()) {
    Json both = *answer;
    both["hosts"] = hosts->contains("hosts") ? *hosts->find("hosts") : Json::array();
    fmt::print("{}\n", both.pretty());
    return kOk;
  }
  for (const auto& [key, value] : answer->members()) {
    print_field(key, value.is_string() ? value.as_string() : value.dump());
  }
  const Json* list = hosts->find("hosts");
  if (list == nullptr || !list->is_array()) return kOk;
  Table table({"HOST", "HEALTH", "CPUS", "FREE", "MEMORY", "GPUS"});
  for (const Json& host : list->items()) {
    const auto cpus = [&](std::string_view key) {
      return fmt::format("{:g}", static_cast<double>(host.get_int(key).value_or(0)) / 1000);
    };
    table.add(
        {text_or(host, "name"), text_or(host, "health"), cpus("milli_cpus"), cpus("milli_cpus_free"),
         fmt::format("{:.1f}GiB", static_cast<double>(host.get_int("memory_bytes").value_or(0)) / (1 << 30)),
         std::to_string(host.get_int("gpus").value_or(0))});
  }
  fmt::print("\n{}", table.text());
  for (const Json& host : list->items()) {
    const Json* capabilities = host.find("capabilities");
    if (capabilities == nullptr || !capabilities->is_array()) continue;
    for (const Json& capability : capabilities->items()) {
      if (capability.get_bool("ok").value_or(true)) continue;
      fmt::print("not enforced on {}: {} ({})\n", text_or(host, "name"), text_or(capability, "name"),
                 text_or(capability, "why"));
    }
  }
  return kOk;
}

}  // namespace capstan::cli

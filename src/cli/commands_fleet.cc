// fleet, hosts, maintain, defragment: what there is, and what people do to it.
#include <algorithm>
#include <cstdio>

#include "cli/format.h"
#include "cli/scheduling_commands.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

// "3/8": what is free of what there is; nothing where there is nothing.
std::string free_of(std::int64_t free, std::int64_t all) {
  return all == 0 ? std::string("-") : fmt::format("{}/{}", free, all);
}

std::string unavailable_of(const Json& place) {
  std::vector<std::string> parts;
  if (const Json* reasons = place.find("unavailable"); reasons != nullptr && reasons->is_object()) {
    for (const auto& [reason, count] : reasons->members())
      parts.push_back(fmt::format("{} {}", count.is_int() ? count.as_int() : 0, reason));
  }
  if (const auto failed = number_of(place, "gpus_failed"); failed > 0)
    parts.push_back(fmt::format("{} gpus failed", failed));
  return fmt::format("{}", fmt::join(parts, ", "));
}

void add_place(Table& table, const std::string& name, const Json& place) {
  const auto cpus = [&](std::string_view key) { return number_of(place, key) / 1000; };
  table.add({name, free_of(number_of(place, "ultraservers_free"), number_of(place, "ultraservers")),
             free_of(number_of(place, "hosts_free"), number_of(place, "hosts")),
             free_of(number_of(place, "gpus_free"), number_of(place, "gpus")),
             free_of(cpus("milli_cpus_free"), cpus("milli_cpus")), unavailable_of(place)});
}

void print_fleet(const Json& fleet, const std::string& level) {
  Table places({"PLACE", "ULTRASERVERS", "HOSTS", "GPUS", "CPUS", "UNAVAILABLE"});
  for (const Json& region : list_of(fleet, "regions")) {
    add_place(places, text_of(region, "name"), region);
    if (level == "region") continue;
    for (const Json& cluster : list_of(region, "clusters")) {
      add_place(places, "  " + text_of(cluster, "name"), cluster);
      if (level == "cluster") continue;
      for (const Json& block : list_of(cluster, "blocks"))
        add_place(places, "    " + text_of(block, "name"), block);
    }
  }
  if (const Json* total = fleet.find("total")) add_place(places, "all", *total);
  fmt::print("{}\nfree/all; a host or UltraServer is free while nothing runs on it and it may take work\n",
             places.text());
  if (list_of(fleet, "classes").empty()) return;
  Table classes({"CLASS", "HOSTS", "GPUS EACH", "CPUS EACH", "MEMORY EACH"});
  for (const Json& one : list_of(fleet, "classes")) {
    const std::int64_t gpus = number_of(one, "gpus");
    classes.add({text_of(one, "name"), std::to_string(number_of(one, "hosts")),
                 gpus == 0 ? "-"
                           : fmt::format("{} {}{}", gpus, text_of(one, "gpu_model"),
                                         one.get_bool("shared_gpus").value_or(false) ? ", shared" : ""),
                 format_cpus(number_of(one, "milli_cpus")), format_memory(number_of(one, "memory_bytes"))});
  }
  fmt::print("\n{}", classes.text());
}

std::string condition_of(const Json& host) {
  std::string text = text_of(host, "health");
  if (const std::string condition = text_of(host, "condition");
      !condition.empty() && condition != "in service")
    text += ", " + condition;
  if (host.get_bool("cordoned").value_or(false)) text += ", cordoned";
  if (const auto failed = number_of(host, "gpus_failed"); failed > 0)
    text += fmt::format(", {} gpus failed", failed);
  return text;
}

void print_hosts(const Json& answer) {
  Table table({"HOST", "CONDITION", "CLASS", "ULTRASERVER", "BLOCK", "GPUS", "CPUS", "RANKS"});
  for (const Json& host : list_of(answer, "hosts")) {
    const std::string domain = text_of(host, "ultraserver");
    table.add({text_of(host, "name"), condition_of(host), text_of(host, "class"),
               domain.empty() ? "-" : domain,
               fmt::format("{}/{}", text_of(host, "cluster"), text_of(host, "block")),
               free_of(number_of(host, "gpus_free"), number_of(host, "gpus")),
               fmt::format("{}/{}", format_cpus(number_of(host, "milli_cpus_free")),
                           format_cpus(number_of(host, "milli_cpus"))),
               std::to_string(number_of(host, "ranks"))});
  }
  fmt::print("{}", table.text());
  const auto shown = static_cast<std::int64_t>(list_of(answer, "hosts").size());
  if (const auto matched = number_of(answer, "matched"); matched > shown)
    fmt::print("{} of {} hosts; narrow it down with --under and --unavailable, or raise --limit\n", shown,
               matched);
}

Json names_of(const std::vector<std::string>& names) { return Json(Json::Array(names.begin(), names.end())); }

// What the verb has done to them, in words.
std::string_view done(std::string_view verb) {
  if (verb == "cordon") return "cordoned: they take no new work, what runs there goes on";
  if (verb == "uncordon") return "uncordoned: they take work again";
  if (verb == "drain") return "draining: what runs there moves away, gracefully";
  if (verb == "fail") return "failed: what runs there goes on elsewhere";
  if (verb == "repair") return "in repair, until: capstan hosts return";
  return "back in service";
}

// The first names of a list, and how many more there are.
std::string names_in(const Json& json, std::string_view key) {
  constexpr std::size_t kShown = 4;
  std::string text;
  const auto& list = list_of(json, key);
  for (std::size_t i = 0; i < std::min(kShown, list.size()); ++i)
    text += (i == 0 ? "" : " ") + (list[i].is_string() ? list[i].as_string() : "");
  if (list.size() > kShown) text += fmt::format(" and {} more", list.size() - kShown);
  return text;
}

void print_moves(const Json& plan, bool applied) {
  const auto& moves = list_of(plan, "moves");
  if (moves.empty()) {
    fmt::print("nothing to move: no UltraServer would become free\n");
    return;
  }
  const auto minutes = [](const Json& json) {
    return fmt::format("{:.0f} GPU minutes", static_cast<double>(number_of(json, "lost_gpu_seconds")) / 60);
  };
  Table table({"WORKLOAD", "KIND", "RANKS", "FROM", "TO", "LOSES"});
  for (const Json& move : moves) {
    table.add({text_of(move, "name"), text_of(move, "kind"), std::to_string(number_of(move, "ranks")),
               names_in(move, "from"), names_in(move, "to"), minutes(move)});
  }
  const std::size_t freed = list_of(plan, "freed").size();
  fmt::print("{}\nfrees {} {}: {}; loses {} in all\n", table.text(), freed,
             freed == 1 ? "UltraServer" : "UltraServers", names_in(plan, "freed"), minutes(plan));
  fmt::print("{}\n", applied ? "the moves have begun"
                             : "nothing is moved yet; do it with: capstan defragment --apply");
}

}  // namespace

int fleet_apply(const Globals& globals, const FleetApplyOptions& options) {
  const auto answer =
      post_yaml(globals, fmt::format("/api/v1/fleet?present={}", options.present ? 1 : 0), options.file);
  return show(globals, answer, [](const Json& json) {
    fmt::print("fleet {}: {} hosts added\n", text_of(json, "fleet"), number_of(json, "hosts"));
  });
}

int fleet_show(const Globals& globals, const FleetShowOptions& options) {
  return show(globals, request(globals, "/api/v1/fleet"),
              [&](const Json& json) { print_fleet(json, options.level); });
}

int list_hosts(const Globals& globals, const HostsOptions& options) {
  std::string path = fmt::format("/api/v1/hosts?limit={}", options.limit);
  if (options.unavailable) path += "&unavailable=1";
  if (!options.under.empty()) path += "&under=" + url_encode(options.under);
  const auto answer = request(globals, path);
  if (options.names && answer) {
    for (const Json& host : list_of(*answer, "hosts")) fmt::print("{}\n", text_of(host, "name"));
    return kOk;
  }
  return show(globals, answer, &print_hosts);
}

int set_hosts(const Globals& globals, const std::string& verb, const HostVerbOptions& options) {
  Json body = Json::object({{"names", names_of(options.names)}});
  if (!options.why.empty()) body["why"] = options.why;
  if (!options.gpus.empty()) body["gpus"] = Json(Json::Array(options.gpus.begin(), options.gpus.end()));
  return show(globals, request(globals, "/api/v1/hosts/" + verb, body), [&](const Json& json) {
    if (!options.gpus.empty()) {
      fmt::print("{}: GPUs {} {}\n", options.names.front(), fmt::join(options.gpus, ", "),
                 verb == "fail" ? "failed" : "are back");
      return;
    }
    const std::int64_t hosts = number_of(json, "hosts");
    fmt::print("{} {} {}\n", hosts, hosts == 1 ? "host" : "hosts", done(verb));
  });
}

int maintain(const Globals& globals, const MaintainOptions& options) {
  const Json body =
      Json::object({{"names", names_of(options.names)}, {"from", options.from}, {"until", options.until}});
  return show(globals, request(globals, "/api/v1/maintenance", body), [&](const Json& json) {
    const std::size_t hosts = list_of(json, "hosts").size();
    fmt::print("{} {} kept free from {} until {}\n", hosts, hosts == 1 ? "host is" : "hosts are",
               format_time(number_of(json, "from_ms")), format_time(number_of(json, "until_ms")));
  });
}

int defragment(const Globals& globals, const DefragmentOptions& options) {
  const Json body = Json::object({{"dry_run", !options.apply}, {"moves_max", options.moves_max}});
  return show(globals, request(globals, "/api/v1/defragment", body),
              [&](const Json& json) { print_moves(json, options.apply); });
}

}  // namespace capstan::cli

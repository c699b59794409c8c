// org, project, key, limit, usage, audit: who may infer, how much, and what it cost.
#include <algorithm>
#include <cstdio>

#include "base/text.h"
#include "cli/accounts_commands.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

constexpr int kNanoDigits = 9;

std::string joined(const Json& json, std::string_view key, std::string_view nothing) {
  std::string out;
  for (const Json& item : list_of(json, key)) out += (out.empty() ? "" : ",") + (item.is_string() ? item.as_string() : "");
  return out.empty() ? std::string(nothing) : out;
}

std::string dollars(std::int64_t nano_dollars) {
  std::string text = fmt::format("${}.{:09d}", nano_dollars / 1'000'000'000, nano_dollars % 1'000'000'000);
  const std::size_t least = text.find('.') + 3;
  while (text.size() > least && text.back() == '0') text.pop_back();
  return text;
}

std::string amount_of(const Json& limit, std::string_view key) {
  return text_of(limit, "unit") == "nano_dollars" ? dollars(number_of(limit, key)) : std::to_string(number_of(limit, key));
}

int say(const Globals& globals, const Result<Json>& answer, const std::string& text) {
  return show(globals, answer, [&](const Json&) { fmt::print("{}\n", text); });
}

Json with_texts(const std::vector<std::string>& items) {
  Json out = Json::array();
  for (const std::string& item : items) out.push_back(item);
  return out;
}

}  // namespace

Result<std::int64_t> parse_decimal(std::string_view text, int decimals) {
  const auto point = text.find('.');
  std::string digits(text.substr(0, point));
  std::string fraction(point == std::string_view::npos ? "" : text.substr(point + 1));
  const auto plain = [](std::string_view part) {
    return std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
  };
  if (digits.empty() || !plain(digits) || !plain(fraction) || (point != std::string_view::npos && fraction.empty()) ||
      fraction.size() > static_cast<std::size_t>(decimals))
    return fail(Code::kInvalid, "'{}' is no amount such as 12.5 with at most {} decimals", text, decimals);
  fraction.resize(static_cast<std::size_t>(decimals), '0');
  const auto value = parse_int(digits + fraction);
  if (!value) return fail(Code::kInvalid, "'{}' is too much", text);
  return *value;
}

int org_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/organisations"), [](const Json& json) {
    Table table({"ORGANISATION", "CREATED"});
    for (const Json& one : list_of(json, "organisations"))
      table.add({text_of(one, "name"), format_time(number_of(one, "created_ms"))});
    fmt::print("{}", table.text());
  });
}

int org_add(const Globals& globals, const std::string& name) {
  return say(globals, request(globals, "/api/v1/organisations", Json::object({{"name", name}})),
             fmt::format("organisation {} added", name));
}

int org_remove(const Globals& globals, const std::string& name) {
  return say(globals, request(globals, fmt::format("/api/v1/organisations/{}/remove", url_encode(name)), Json::object()),
             fmt::format("organisation {} removed", name));
}

int project_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/projects"), [](const Json& json) {
    Table table({"PROJECT", "WEIGHT", "CREATED"});
    for (const Json& one : list_of(json, "projects"))
      table.add({text_of(one, "project"), std::to_string(number_of(one, "weight")), format_time(number_of(one, "created_ms"))});
    fmt::print("{}", table.text());
  });
}

int project_add(const Globals& globals, const ProjectOptions& options) {
  return say(globals,
             request(globals, "/api/v1/projects",
                     Json::object({{"project", options.project}, {"weight", options.weight}})),
             fmt::format("project {} added", options.project));
}

int project_remove(const Globals& globals, const std::string& project) {
  return say(globals, request(globals, "/api/v1/projects/remove", Json::object({{"project", project}})),
             fmt::format("project {} removed", project));
}

int key_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/keys"), [](const Json& json) {
    Table table({"KEY", "PREFIX", "ROLE", "SCOPES", "MODELS", "TIER", "EXPIRES", "ACCESS KEY ID"});
    for (const Json& one : list_of(json, "keys")) {
      const std::int64_t expires_ms = number_of(one, "expires_ms");
      const std::string access = text_of(one, "access_key_id");
      table.add({text_of(one, "key"), text_of(one, "prefix") + "…", text_of(one, "role"), joined(one, "scopes", "-"),
                 joined(one, "models", "all"), text_of(one, "tier"),
                 expires_ms == 0 ? "never" : format_time(expires_ms), access.empty() ? "-" : access});
    }
    fmt::print("{}", table.text());
  });
}

int key_add(const Globals& globals, const KeyOptions& options) {
  Json body = Json::object({{"project", options.project},
                            {"name", options.name},
                            {"role", options.role},
                            {"tier", options.tier},
                            {"signing", options.signing}});
  if (!options.scopes.empty()) body["scopes"] = with_texts(options.scopes);
  if (!options.models.empty()) body["models"] = with_texts(options.models);
  if (!options.expires.empty()) body["expires"] = options.expires;
  return show(globals, request(globals, "/api/v1/keys", body), [](const Json& json) {
    fmt::print("{}\n", text_of(json, "token"));
    if (json.contains("access_key_id"))
      fmt::print("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", text_of(json, "access_key_id"),
                 text_of(json, "secret_access_key"));
    fmt::print(stderr, "key {} added; it is shown this once\n", text_of(json, "key"));
  });
}

int key_revoke(const Globals& globals, const std::string& key) {
  return say(globals, request(globals, "/api/v1/keys/revoke", Json::object({{"key", key}})),
             fmt::format("key {} revoked", key));
}

int limit_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/limits"), [](const Json& json) {
    Table table({"LIMIT", "OF", "MODEL", "WHAT", "PER", "AMOUNT", "USED", "HELD"});
    for (const Json& one : list_of(json, "limits")) {
      const bool money = text_of(one, "unit") == "nano_dollars";
      const std::string model = text_of(one, "model");
      table.add({std::to_string(number_of(one, "id")), text_of(one, "subject"), model.empty() ? "all" : model,
                 money ? "dollars" : text_of(one, "unit"),
                 text_of(one, "window") == "concurrent" ? "at once" : text_of(one, "window"), amount_of(one, "amount"),
                 amount_of(one, "used"), amount_of(one, "reserved")});
    }
    fmt::print("{}", table.text());
  });
}

int limit_set(const Globals& globals, const LimitOptions& options) {
  std::vector<Json> bodies;
  const auto add = [&](std::string_view unit, std::string_view window, std::int64_t amount) {
    bodies.push_back(Json::object({{"subject", options.subject},
                                   {"model", options.model},
                                   {"window", window},
                                   {"unit", unit},
                                   {"amount", amount}}));
  };
  for (const auto& [unit, texts] : {std::pair{"requests", &options.requests},
                                    {"tokens", &options.tokens},
                                    {"input_tokens", &options.input_tokens},
                                    {"output_tokens", &options.output_tokens},
                                    {"nano_dollars", &options.dollars}}) {
    for (const std::string& text : *texts) {
      const auto slash = text.find('/');
      if (slash == std::string::npos)
        return report(Error{Code::kInvalid, fmt::format("'{}' must be AMOUNT/minute, AMOUNT/day or AMOUNT/month", text), {}});
      const bool money = std::string_view(unit) == "nano_dollars";
      const auto amount = parse_decimal(std::string_view(text).substr(0, slash), money ? kNanoDigits : 0);
      if (!amount) return report(amount.error());
      add(unit, std::string_view(text).substr(slash + 1), *amount);
    }
  }
  if (options.concurrent >= 0) add("requests", "concurrent", options.concurrent);
  if (bodies.empty())
    return report(Error{Code::kInvalid, "say what is limited, for example --requests 60/minute --dollars 50/month", {}});
  for (const Json& body : bodies) {
    const int code = show(globals, request(globals, "/api/v1/limits", body), [](const Json& json) {
      fmt::print("limit {} of {}: {} {} {}\n", number_of(json, "id"), text_of(json, "subject"), amount_of(json, "amount"),
                 text_of(json, "unit") == "nano_dollars" ? "" : text_of(json, "unit"),
                 text_of(json, "window") == "concurrent" ? "at once" : "per " + text_of(json, "window"));
    });
    if (code != kOk) return code;
  }
  return kOk;
}

int limit_remove(const Globals& globals, std::int64_t id) {
  return say(globals, request(globals, fmt::format("/api/v1/limits/{}/remove", id), Json::object()),
             fmt::format("limit {} removed", id));
}

namespace {

void print_requests(const Json& json) {
  Table table({"TIME", "REQUEST", "KEY", "MODEL", "STATUS", "INPUT", "CACHED", "OUTPUT", "COST", "TTFT MS", "MS"});
  for (const Json& one : list_of(json, "requests")) {
    table.add({format_time(number_of(one, "time_ms")), text_of(one, "request_id"), text_of(one, "key"),
               text_of(one, "model"), std::to_string(number_of(one, "status")),
               std::to_string(number_of(one, "prompt_tokens")), std::to_string(number_of(one, "cached_tokens")),
               std::to_string(number_of(one, "completion_tokens")), dollars(number_of(one, "nano_dollars")),
               std::to_string(number_of(one, "first_byte_ms")), std::to_string(number_of(one, "total_ms"))});
  }
  fmt::print("{}", table.text());
}

std::string seconds(double thousandths) { return fmt::format("{:.1f}", thousandths / 1000); }

// What sandboxes and tasks used.
void print_compute(const Json& json, const std::string& by) {
  Table table({by == "model" ? "-" : by == "day" ? "DAY" : by == "key" ? "KEY" : "PROJECT", "KIND", "RUNS", "HOURS", "CPU S",
               "GIB S", "PEAK", "IN", "OUT"});
  for (const Json& one : list_of(json, "compute")) {
    const auto number = [&](std::string_view key) { return static_cast<double>(number_of(one, key)); };
    table.add({by == "model" ? "-" : by == "day" ? format_time(number_of(one, "day_ms")).substr(0, 10) : text_of(one, by),
               text_of(one, "kind"), std::to_string(number_of(one, "runs")),
               fmt::format("{:.2f}", number("wall_ms") / 3'600'000), seconds(number("cpu_us") / 1000),
               seconds(number("memory_mib_ms") / 1024), format_memory(number_of(one, "memory_peak_bytes")),
               format_memory(number_of(one, "bytes_in")), format_memory(number_of(one, "bytes_out"))});
  }
  fmt::print("\n{}", table.text());
}

void print_usage(const Json& json) {
  const std::string by = text_of(json, "by");
  std::string heading = by;
  for (char& c : heading) c = static_cast<char>(c - 'a' + 'A');
  Table table({heading, "REQUESTS", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST"});
  for (const Json& one : list_of(json, "usage")) {
    table.add({by == "day" ? format_time(number_of(one, "day_ms")).substr(0, 10) : text_of(one, by),
               std::to_string(number_of(one, "requests")), std::to_string(number_of(one, "input_tokens")),
               std::to_string(number_of(one, "cached_tokens")), std::to_string(number_of(one, "output_tokens")),
               std::to_string(number_of(one, "reasoning_tokens")), dollars(number_of(one, "nano_dollars"))});
  }
  fmt::print("{}", table.text());
  if (!list_of(json, "compute").empty()) print_compute(json, by);
}

}  // namespace

int usage(const Globals& globals, const UsageOptions& options) {
  std::string query = fmt::format("of={}&model={}", url_encode(options.of), url_encode(options.model));
  if (options.requests)
    return show(globals, request(globals, fmt::format("/api/v1/usage/requests?{}&limit={}", query, options.limit)),
                &print_requests);
  if (!options.since.empty()) query += "&since=" + url_encode(options.since);
  return show(globals, request(globals, fmt::format("/api/v1/usage?by={}&{}", options.by, query)), &print_usage);
}

int audit(const Globals& globals, std::int64_t since) {
  return show(globals, request(globals, fmt::format("/api/v1/audit?since={}", since)), [](const Json& json) {
    Table table({"#", "TIME", "WHO", "WHAT", "OBJECT", "DETAIL"});
    for (const Json& one : list_of(json, "audit")) {
      table.add({std::to_string(number_of(one, "id")), format_time(number_of(one, "time_ms")), text_of(one, "actor"),
                 text_of(one, "action"), text_of(one, "object"), text_of(one, "detail")});
    }
    fmt::print("{}", table.text());
  });
}

}  // namespace capstan::cli

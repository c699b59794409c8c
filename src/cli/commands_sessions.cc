// session: sandboxes over the API that E2B's clients use (docs/sessions.md).
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/session_api.h"
#include "cli/session_exec.h"
#include "cli/sessions_commands.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

Result<Json> ask(const Globals& globals, std::string method, std::string path, const std::optional<Json>& body = {}) {
  CAPSTAN_TRY(SessionApi api, SessionApi::connect(globals.connection));
  http::Request request{.method = std::move(method), .target = std::move(path)};
  if (body) {
    request.headers.set("content-type", "application/json");
    request.body = body->dump();
  }
  CAPSTAN_TRY(const http::Response answer, api.send(std::move(request)));
  return answer.body.empty() ? Json::object() : Json::parse(answer.body);
}

std::string at(const std::string& id, std::string_view rest = {}) {
  return fmt::format("/sandboxes/{}{}", url_encode(id), rest);
}

Result<Json> words(const std::vector<std::string>& pairs) {
  Json out = Json::object();
  for (const std::string& pair : pairs) {
    const std::size_t equals = pair.find('=');
    if (equals == pair.npos || equals == 0) return fail(Code::kInvalid, "'{}' is not NAME=VALUE", pair);
    out[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return out;
}

int say(const Globals& globals, const Result<Json>& answer, const std::string& text) {
  return show(globals, answer, [&](const Json&) { fmt::print("{}\n", text); });
}

}  // namespace

int session_create(const Globals& globals, const SessionCreateOptions& options) {
  const auto env = words(options.env), metadata = words(options.metadata);
  if (!env) return report(env.error());
  if (!metadata) return report(metadata.error());
  Json body = Json::object(
      {{"templateID", options.form}, {"timeout", options.timeout_s}, {"envVars", *env}, {"metadata", *metadata}});
  if (options.no_network) body["allow_internet_access"] = false;
  if (!options.allow.empty()) {
    Json hosts = Json::array();
    for (const std::string& host : options.allow) hosts.push_back(host);
    body["network"] = Json::object({{"allowOut", std::move(hosts)}});
  }
  return show(globals, ask(globals, "POST", "/v2/sandboxes", body),
              [](const Json& json) { fmt::print("{}\n", text_of(json, "sandboxID")); });
}

int session_list(const Globals& globals) {
  Json all = Json::array();
  std::string next, missing, other_build;
  do {
    auto api = SessionApi::connect(globals.connection);
    if (!api) return report(api.error());
    const std::string from = next.empty() ? "" : "?nextToken=" + url_encode(next);
    const auto page = api->send({.method = "GET", .target = "/v2/sandboxes" + from});
    if (!page) return report(page.error());
    auto json = Json::parse(page->body);
    if (!json || !json->is_array()) return report(Error{Code::kCorrupt, "the list of sandboxes is not one", {}});
    for (Json& one : json->items()) all.push_back(std::move(one));
    next = page->headers.get("x-next-token");
    missing = page->headers.get("x-capstan-missing");
    if (const std::string* build = page->headers.find("x-capstan-other-build")) other_build = *build;
  } while (!next.empty());
  if (!other_build.empty())
    fmt::print(stderr, "the session host is of another build ({}); it is replaced when its last session ends\n", other_build);
  if (!missing.empty()) fmt::print(stderr, "not in the list are the sandboxes of host {}\n", missing);
  return show(globals, all, [](const Json& json) {
    Table table({"SANDBOX", "TEMPLATE", "STATE", "STARTED", "ENDS", "CPUS", "MEMORY", "NAME"});
    for (const Json& one : json.items()) {
      const std::string name = text_of(one, "name");
      const bool paused = text_of(one, "state") == "paused";
      table.add({text_of(one, "sandboxID"), text_of(one, "templateID"), text_of(one, "state"),
                 text_of(one, "startedAt").substr(0, 19), paused ? "-" : text_of(one, "endAt").substr(0, 19),
                 std::to_string(number_of(one, "cpuCount")), fmt::format("{} MiB", number_of(one, "memoryMB")),
                 name.empty() ? "-" : name});
    }
    fmt::print("{}", table.text());
  });
}

namespace {

// How far a template's packages are, in a line; or what is wrong with its file.
std::string packages_of(const Json& form) {
  constexpr std::size_t kShown = 120;
  if (const std::string wrong = text_of(form, "error"); !wrong.empty()) return wrong.substr(0, kShown);
  const Json* packages = form.find("packages");
  if (packages == nullptr) return "-";
  const std::string message = text_of(*packages, "message");
  const std::string line = message.substr(message.rfind('\n') + 1, kShown);
  return text_of(*packages, "state") + (line.empty() ? "" : ": " + line);
}

}  // namespace

int session_templates(const Globals& globals) {
  const auto forms = ask(globals, "GET", "/templates"), snapshots = ask(globals, "GET", "/snapshots");
  if (!forms) return report(forms.error());
  if (!snapshots) return report(snapshots.error());
  return show(globals, Json::object({{"templates", *forms}, {"snapshots", *snapshots}}), [](const Json& json) {
    Table table({"TEMPLATE", "NAME", "OF", "READY", "PACKAGES"});
    for (const Json& one : list_of(json, "templates"))
      table.add({text_of(one, "templateID"), "-", "-", std::to_string(number_of(one, "ready")), packages_of(one)});
    for (const Json& one : list_of(json, "snapshots")) {
      const auto& names = list_of(one, "names");
      table.add({text_of(one, "snapshotID"), names.empty() ? "-" : names[0].as_string(), text_of(one, "sandboxID"), "-", "-"});
    }
    fmt::print("{}", table.text());
  });
}

int session_exec(const Globals& globals, const SessionExecOptions& options) {
  const auto env = words(options.env);
  if (!env) return report(env.error());
  return exec_in_session(globals, options, *env);
}

int session_code(const Globals& globals, const SessionCodeOptions& options) {
  std::string code = options.code;
  if (code == "-") code.assign(std::istreambuf_iterator<char>(std::cin), {});
  bool failed = false;
  std::string pending;
  const auto on_line = [&](std::string_view line) {
    if (globals.json()) fmt::print("{}\n", line);
    const auto event = Json::parse(line);
    if (!event || globals.json()) return;
    const std::string type = text_of(*event, "type");
    if (type == "stdout") fmt::print("{}", text_of(*event, "text"));
    if (type == "stderr") fmt::print(stderr, "{}", text_of(*event, "text"));
    if (type == "result") fmt::print("{}\n", text_of(*event, "text"));
    if (type == "error") fmt::print(stderr, "{}", text_of(*event, "traceback"));
    if (type == "error") failed = true;
    std::fflush(stdout);
  };
  const auto done = stream_in_session(globals, options.id, "/execute", Json::object({{"code", code}}).dump(),
                                      "application/json", [&](std::string_view piece) {
                                        pending += piece;
                                        for (std::size_t end = 0; (end = pending.find('\n')) != pending.npos;) {
                                          on_line(std::string_view(pending).substr(0, end));
                                          pending.erase(0, end + 1);
                                        }
                                        return true;
                                      });
  if (!done) return report(done.error());
  return failed ? kFailed : kOk;
}

int session_copy(const Globals& globals, const SessionCopyOptions& options) {
  const std::size_t from = options.from.find(':'), to = options.to.find(':');
  if ((from == std::string::npos) == (to == std::string::npos))
    return report(Error{Code::kInvalid, "one of the two must be ID:PATH, the other a file", {}});
  if (to != std::string::npos) {
    std::ifstream file(options.from, std::ios::binary);
    if (!file) return report(Error{Code::kNotFound, "cannot read " + options.from, {}});
    std::string bytes((std::istreambuf_iterator<char>(file)), {});
    return say(globals, put_into_session(globals, options.to.substr(0, to), options.to.substr(to + 1), std::move(bytes)),
               "copied");
  }
  std::ofstream file(options.to, std::ios::binary);
  if (!file) return report(Error{Code::kDenied, "cannot write " + options.to, {}});
  const auto done = get_from_session(globals, options.from.substr(0, from), options.from.substr(from + 1),
                                     [&](std::string_view piece) {
                                       file.write(piece.data(), static_cast<std::streamsize>(piece.size()));
                                       return file.good();
                                     });
  if (!done) return report(done.error());
  return file.flush() ? kOk : report(Error{Code::kIo, "cannot write " + options.to, {}});
}

int session_kill(const Globals& globals, const std::vector<std::string>& ids) {
  int code = kOk;
  for (const std::string& id : ids)
    code = std::max(code, say(globals, ask(globals, "DELETE", at(id)), fmt::format("sandbox {} ended", id)));
  return code;
}

int session_pause(const Globals& globals, const std::string& id) {
  return say(globals, ask(globals, "POST", at(id, "/pause")), fmt::format("sandbox {} is paused", id));
}

int session_resume(const Globals& globals, const SessionTimeOptions& o) {
  Json body = Json::object();
  if (o.timeout_s) body["timeout"] = *o.timeout_s;
  return say(globals, ask(globals, "POST", at(o.id, "/resume"), std::move(body)),
             fmt::format("sandbox {} goes on", o.id));
}

int session_timeout(const Globals& globals, const SessionTimeOptions& o) {
  const std::int64_t timeout_s = o.timeout_s.value_or(kTimeoutSDefault);
  return say(globals, ask(globals, "POST", at(o.id, "/timeout"), Json::object({{"timeout", timeout_s}})),
             fmt::format("sandbox {} ends in {} s", o.id, timeout_s));
}

int session_snapshot(const Globals& globals, const SessionSnapshotOptions& options) {
  Json body = Json::object();
  if (!options.name.empty()) body["name"] = options.name;
  return show(globals, ask(globals, "POST", at(options.id, "/snapshots"), body),
              [](const Json& json) { fmt::print("{}\n", text_of(json, "snapshotID")); });
}

}  // namespace capstan::cli

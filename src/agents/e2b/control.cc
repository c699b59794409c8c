// The control plane: sandboxes made, listed, prolonged, paused, copied, ended.
#include <fmt/chrono.h>

#include "agents/e2b/e2b.h"
#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

constexpr std::int64_t kListMax = 100;
constexpr std::int64_t kTimeoutSDefault = 300;
constexpr std::int64_t kForksMax = 100;

int status_of(Code code) {
  switch (code) {
    case Code::kInvalid: return 400;
    case Code::kNotFound: return 404;
    case Code::kConflict: return 409;
    case Code::kDenied: return 403;
    case Code::kExhausted: return 429;
    case Code::kUnavailable: return 503;
    case Code::kUnsupported: return 501;
    default: return 500;
  }
}

Json error_json(const Error& error) {
  return Json::object({{"code", status_of(error.code)}, {"message", error.message}});
}
http::Response refused(const Error& error) { return http::Response::json(status_of(error.code), error_json(error)); }

std::string time_text(std::int64_t ms) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(ms / 1000)), ms % 1000);
}

std::int64_t whole_cpus(const sandbox::BoxLimits& limits) { return (limits.milli_cpus + 999) / 1000; }

Json words(const Words& all) {
  Json out = Json::object();
  for (const auto& [name, value] : all) out[name] = value;
  return out;
}

Result<Words> words_of(const Json& body, std::string_view member) {
  constexpr std::size_t kWordsMax = 256;
  Words out;
  const Json* object = body.find(member);
  if (object == nullptr || object->is_null()) return out;
  if (!object->is_object() || object->size() > kWordsMax)
    return fail(Code::kInvalid, "{} must be an object of at most {} strings", member, kWordsMax);
  for (const auto& [name, value] : object->members()) {
    if (name.empty() || !value.is_string()) return fail(Code::kInvalid, "{}.{} is not a string", member, name);
    out[name] = value.as_string();
  }
  return out;
}

// What a client needs to talk to the sandbox.
Json access(const Session& session) {
  return Json::object({{"sandboxID", session.id()},
                       {"templateID", session.terms().template_name},
                       {"clientID", "capstan"},
                       {"alias", session.terms().template_name},
                       {"envdVersion", kEnvdVersion},
                       {"envdAccessToken", session.token()},
                       {"trafficAccessToken", session.token()},
                       {"domain", nullptr}});
}

Json description(const Session& session) {
  const bool paused = session.state() == Session::State::kPaused;
  Json hosts = Json::array();
  const HostRules reachable = session.hosts();
  for (const std::string& entry : reachable.entries()) hosts.push_back(entry);
  return Json::object({{"sandboxID", session.id()},
                       {"name", session.terms().placed ? Json(session.terms().placed->name) : Json()},
                       {"templateID", session.terms().template_name},
                       {"alias", session.terms().template_name},
                       {"clientID", "capstan"},
                       {"startedAt", time_text(session.started_ms())},
                       {"endAt", time_text(session.ends_ms())},
                       {"cpuCount", whole_cpus(session.limits())},
                       {"memoryMB", session.limits().memory_bytes >> 20},
                       {"diskSizeMB", session.limits().tmpfs_bytes >> 20},
                       {"metadata", words(session.terms().metadata)},
                       {"state", paused ? "paused" : "running"},
                       {"envdVersion", kEnvdVersion},
                       {"allowInternetAccess", hosts.size() > 0},
                       {"network", Json::object({{"allowOut", std::move(hosts)}})},
                       {"lifecycle", Json::object({{"onTimeout", session.terms().pause_at_end ? "pause" : "kill"},
                                                   {"autoResume", session.terms().auto_resume}})},
                       {"volumeMounts", Json::array()}});
}

Result<Json> body_of(const http::Request& request) {
  CAPSTAN_TRY(Json body, Json::parse(request.body.empty() ? "{}" : std::string_view(request.body)));
  if (!body.is_object()) return fail(Code::kInvalid, "the body must be an object");
  return body;
}

Result<std::int64_t> timeout_of(const Json& body, const SessionManager& manager, std::int64_t otherwise_s) {
  const std::int64_t seconds = body.get_int("timeout").value_or(otherwise_s);
  if (seconds < 0 || seconds > INT32_MAX) return fail(Code::kInvalid, "a timeout of {} s", seconds);
  CAPSTAN_CHECK(manager.check_timeout(seconds * 1000));
  return seconds * 1000;
}

// What these sandboxes cannot do is refused, never ignored.
Result<void> check_wishes(const Json& body) {
  for (const std::string_view member : {"volumeMounts", "iam", "mcp"}) {
    const Json* wish = body.find(member);
    if (wish != nullptr && !wish->is_null() && wish->size() > 0)
      return fail(Code::kUnsupported, "'{}' is not offered by sandboxes here", member);
  }
  return {};
}

using Call = std::function<Result<http::Response>(const http::Request&, SessionManager&)>;
void add(http::Router& router, SessionManager& manager, std::string method, std::string path, Call call) {
  router.add(std::move(method), std::move(path),
             [&manager, call = std::move(call)](const http::Request& request, const http::ResponseWriterPtr& writer) {
               auto answer = call(request, manager);
               writer->respond(answer ? std::move(*answer) : refused(answer.error()));
             });
}

Result<SessionPtr> named(const http::Request& request, SessionManager& manager) {
  return manager.find(request.param("id"), owner_of(request));
}

Result<http::Response> create(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const Json body, body_of(request));
  CAPSTAN_CHECK(check_wishes(body));
  SessionTerms terms{.owner = owner_of(request), .template_name = body.get_string("templateID").value_or("base")};
  CAPSTAN_TRY(terms.timeout_ms, timeout_of(body, manager, kTimeoutSDefault));
  CAPSTAN_TRY(terms.metadata, words_of(body, "metadata"));
  CAPSTAN_TRY(terms.env, words_of(body, "envVars"));
  const Json* network = body.find("network");
  CAPSTAN_TRY(terms.network, network_wish(body, network == nullptr ? Json::object() : *network));
  terms.pause_at_end = body.get_bool("autoPause").value_or(false);
  if (const Json* resume = body.find("autoResume")) terms.auto_resume = resume->get_bool("enabled").value_or(false);
  CAPSTAN_TRY(const SessionPtr session, manager.create(std::move(terms)));
  return http::Response::json(201, access(*session));
}

// "a=b&c=d", each part encoded twice: once for itself, once as a query's value.
Result<Words> metadata_filter(const http::Request& request) {
  Words out;
  const std::string text = request.query_value("metadata").value_or("");
  for (const std::string_view pair : split(text, '&')) {
    if (pair.empty()) continue;
    const std::size_t equals = std::min(pair.find('='), pair.size());
    CAPSTAN_TRY(std::string name, http::percent_decode(pair.substr(0, equals), true));
    CAPSTAN_TRY(name, http::percent_decode(name, false));
    CAPSTAN_TRY(std::string value, http::percent_decode(pair.substr(std::min(equals + 1, pair.size())), true));
    CAPSTAN_TRY(value, http::percent_decode(value, false));
    out[name] = value;
  }
  return out;
}

Result<http::Response> list(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const Words wanted, metadata_filter(request));
  const std::string states = request.query_value("state").value_or("");
  const std::string form = request.query_value("template").value_or("");
  const std::string after = request.query_value("nextToken").value_or("");
  const std::int64_t limit = parse_int(request.query_value("limit").value_or("")).value_or(kListMax);
  if (limit < 1) return fail(Code::kInvalid, "limit must be at least 1");
  Json out = Json::array();
  std::string next;
  bool begun = after.empty();
  for (const SessionPtr& session : manager.list(owner_of(request))) {
    if (!begun) {
      begun = session->id() == after;
      continue;
    }
    const Words& has = session->terms().metadata;
    const bool fits = std::ranges::all_of(wanted, [&](const auto& one) {
      const auto found = has.find(one.first);
      return found != has.end() && found->second == one.second;
    });
    const std::string_view state = session->state() == Session::State::kPaused ? "paused" : "running";
    if (!fits || (!states.empty() && states.find(state) == states.npos)) continue;
    if (!form.empty() && session->terms().template_name != form) continue;
    if (std::ssize(out.items()) >= std::min(limit, kListMax)) {
      http::Response page = http::Response::json(200, out);
      page.headers.set("x-next-token", next);
      return page;
    }
    next = session->id();
    out.push_back(description(*session));
  }
  return http::Response::json(200, out);
}

Result<http::Response> info(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  Json out = description(*session);
  out["envdAccessToken"] = session->token();
  return http::Response::json(200, out);
}

Result<http::Response> end(const http::Request& request, SessionManager& manager) {
  CAPSTAN_CHECK(manager.end(request.param("id"), owner_of(request)));
  return http::Response{.status = 204};
}

Result<http::Response> set_timeout(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  CAPSTAN_TRY(const std::int64_t timeout_ms, timeout_of(body, manager, kTimeoutSDefault));
  session->set_timeout(timeout_ms);
  return http::Response{.status = 204};
}

Result<http::Response> pause(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_CHECK(session->pause());
  return http::Response{.status = 204};
}

Result<http::Response> connect(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  CAPSTAN_TRY(const std::int64_t timeout_ms, timeout_of(body, manager, kTimeoutSDefault));
  CAPSTAN_CHECK(session->resume(timeout_ms, body.find("timeout") == nullptr));
  return http::Response::json(200, access(*session));
}

Result<http::Response> metrics(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  const sandbox::Usage usage = session->usage_now();
  const std::int64_t now_ms = unix_ms(), wall_ms = std::max<std::int64_t>(now_ms - session->started_ms(), 1);
  const double cpu_percent = static_cast<double>(usage.cpu_us) / 10.0 / static_cast<double>(wall_ms);
  return http::Response::json(
      200, Json::array({Json::object({{"timestamp", time_text(now_ms)},
                                      {"timestampUnix", now_ms / 1000},
                                      {"cpuCount", whole_cpus(session->limits())},
                                      {"cpuUsedPct", cpu_percent},
                                      {"memUsed", usage.memory_bytes},
                                      {"memTotal", session->limits().memory_bytes},
                                      {"memCache", 0},
                                      {"diskUsed", session->disk_used()},
                                      {"diskTotal", session->limits().tmpfs_bytes}})}));
}

Result<http::Response> snapshot(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  const std::string name = body.get_string("name").value_or("");
  CAPSTAN_TRY(const std::string id, manager.templates().snapshot(*session, name));
  Json names = Json::array();
  if (!name.empty()) names.push_back(name);
  return http::Response::json(201, Json::object({{"snapshotID", id}, {"names", std::move(names)}}));
}

Result<http::Response> snapshots(const http::Request& request, SessionManager& manager) {
  const std::string of = request.query_value("sandboxID").value_or(""), name = request.query_value("name").value_or("");
  Json out = Json::array();
  for (const Snapshot& one : manager.templates().snapshots(owner_of(request))) {
    if ((!of.empty() && one.session != of) || (!name.empty() && one.name != name)) continue;
    Json names = Json::array();
    if (!one.name.empty()) names.push_back(one.name);
    out.push_back(Json::object({{"snapshotID", one.id},
                                {"names", std::move(names)},
                                {"sandboxID", one.session},
                                {"createdAt", time_text(one.made_ms)}}));
  }
  return http::Response::json(200, out);
}

Json packages(const LayerState& layer) {
  using Kind = LayerState::Kind;
  const auto name = [&] {
    switch (layer.kind) {
      case Kind::kAbsent: return "absent";
      case Kind::kMaking: return "installing";
      case Kind::kReady: return "ready";
      case Kind::kFailed: break;
    }
    return "failed";
  };
  return Json::object({{"state", name()}, {"message", layer.text}});
}

Result<http::Response> templates(const http::Request&, SessionManager& manager) {
  Json out = Json::array();
  const auto warm = manager.warm();
  for (const std::string& name : manager.templates().names()) {
    const auto ready = warm.find(name);
    Json one = Json::object({{"templateID", name},
                             {"aliases", Json::array()},
                             {"public", true},
                             {"ready", ready == warm.end() ? 0 : static_cast<std::int64_t>(ready->second)}});
    const auto form = manager.templates().read(name);
    if (!form) one["error"] = form.error().message;
    if (form && !form->packages.empty()) one["packages"] = packages(manager.layers().state(*form));
    out.push_back(std::move(one));
  }
  return http::Response::json(200, out);
}

Result<http::Response> remove_snapshot(const http::Request& request, SessionManager& manager) {
  CAPSTAN_CHECK(manager.templates().remove(request.param("id"), owner_of(request)));
  return http::Response{.status = 204};
}

// Copies that begin with the sandbox's files; its processes are not copied.
Result<http::Response> fork(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  CAPSTAN_TRY(const std::int64_t timeout_ms, timeout_of(body, manager, kTimeoutSDefault));
  const std::int64_t count = body.get_int("count").value_or(1);
  if (count < 1 || count > kForksMax) return fail(Code::kInvalid, "{} forks; 1 to {} are possible", count, kForksMax);
  CAPSTAN_TRY(const std::string id, manager.templates().snapshot(*session, ""));
  Json out = Json::array();
  for (std::int64_t i = 0; i < count; ++i) {
    SessionTerms terms = session->terms();
    terms.owner = owner_of(request);
    terms.timeout_ms = timeout_ms;
    terms.snapshot = id;
    terms.network = {.kind = NetworkWish::Kind::kListed, .hosts = session->hosts().entries()};
    const auto made = manager.create(std::move(terms));
    out.push_back(made ? Json::object({{"sandbox", access(**made)}}) : Json::object({{"error", error_json(made.error())}}));
  }
  CAPSTAN_CHECK(manager.templates().remove(id, owner_of(request)));
  return http::Response::json(201, out);
}

Result<http::Response> set_network(const http::Request& request, SessionManager& manager) {
  CAPSTAN_TRY(const SessionPtr session, named(request, manager));
  CAPSTAN_TRY(const Json body, body_of(request));
  CAPSTAN_TRY(const NetworkWish wish, network_wish(body, body));
  CAPSTAN_CHECK(session->set_network(wish));
  return http::Response{.status = 204};
}

}  // namespace

void add_control_routes(http::Router& router, SessionManager& manager) {
  for (const std::string prefix : {"/v2", ""}) {
    add(router, manager, "POST", prefix + "/sandboxes", create);
    add(router, manager, "GET", prefix + "/sandboxes", list);
    add(router, manager, "POST", prefix + "/sandboxes/{id}/connect", connect);
  }
  add(router, manager, "GET", "/sandboxes/{id}", info);
  add(router, manager, "DELETE", "/sandboxes/{id}", end);
  add(router, manager, "POST", "/sandboxes/{id}/timeout", set_timeout);
  add(router, manager, "POST", "/sandboxes/{id}/pause", pause);
  add(router, manager, "POST", "/sandboxes/{id}/resume", connect);
  add(router, manager, "GET", "/sandboxes/{id}/metrics", metrics);
  add(router, manager, "PUT", "/sandboxes/{id}/network", set_network);
  add(router, manager, "POST", "/sandboxes/{id}/snapshots", snapshot);
  add(router, manager, "POST", "/sandboxes/{id}/fork", fork);
  add(router, manager, "GET", "/snapshots", snapshots);
  add(router, manager, "GET", "/templates", templates);
  add(router, manager, "DELETE", "/templates/{id...}", remove_snapshot);
}

}  // namespace capstan::agents::e2b

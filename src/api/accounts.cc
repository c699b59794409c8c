// How: each handler is given who asks (Actor), checks that this one may, and changes or lists. An Actor with a key
// sees and changes its own organisation only, and can give nobody more than it has.
#include "api/accounts.h"

#include <chrono>
#include <optional>

#include "api/accounts_views.h"
#include "api/body.h"
#include "api/errors.h"
#include "api/query.h"
#include "base/text.h"

namespace capstan::api {
namespace {

using http::Request;
using http::ResponseWriterPtr;
using store::KeyPtr;
using store::Role;

constexpr std::int64_t kListMax = 10'000;
constexpr std::size_t kRecordsMax = 1'000;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Null: no such key, or none at all (then the control token was shown, which the guard has seen).
KeyPtr key_of(const Accounts& accounts, const Request& request) {
  const std::string value = request.headers.get("authorization");
  const auto blank = value.find(' ');
  if (blank == std::string::npos || !value.substr(blank + 1).starts_with("sk-capstan-")) return nullptr;
  return accounts.tenants.find_by_bearer(trim(std::string_view(value).substr(blank + 1)), now_ms()).value_or(nullptr);
}

struct Actor {
  KeyPtr key;  // null: the control token
  store::Change by;

  // Whether it may do what needs `least`, in this organisation (0: in all of them) and project (0: any of it).
  Result<void> may(Role least, std::int64_t organisation, std::int64_t project = 0) const {
    if (!key) return {};
    if (organisation != key->organisation)
      return fail(Code::kDenied, "{}", organisation == 0 ? "only the control token may do that"
                                                         : "this key is of another organisation");
    if (key->role >= least && (key->role >= Role::kAdmin || project == 0 || project == key->project)) return {};
    return fail(Code::kDenied, "this key has the role {} in its project; that needs {}", store::name_of(key->role),
                store::name_of(std::max(least, key->role >= least ? Role::kAdmin : least)));
  }
  std::int64_t organisation() const { return key ? key->organisation : 0; }
};

Actor actor_of(const Accounts& accounts, const Request& request) {
  Actor actor{key_of(accounts, request), {"control token", now_ms()}};
  if (actor.key) actor.by.actor = "key " + accounts.tenants.key_path(actor.key->id);
  return actor;
}

Json done() { return Json::object({{"done", true}}); }

Result<Json> add_organisation(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  std::string name;
  Body body(request, actor.by.now_ms);
  body.need("name", name);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto made, a.tenants.add_organisation(actor.by, name));
  return view(made);
}

Result<Json> remove_organisation(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  CAPSTAN_CHECK(a.tenants.remove_organisation(actor.by, request.param("name")));
  return done();
}

Result<Json> add_project(Accounts& a, const Actor& actor, const Request& request) {
  std::string path;
  std::int64_t weight = 1;
  Body body(request, actor.by.now_ms);
  body.need("project", path);
  body.read("weight", weight);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto organisation, a.tenants.find_organisation(path.substr(0, path.find('/'))));
  CAPSTAN_CHECK(actor.may(Role::kAdmin, organisation.id));
  CAPSTAN_TRY(const auto made, a.tenants.add_project(actor.by, path, weight));
  return view(a.tenants, made);
}

Result<Json> remove_project(Accounts& a, const Actor& actor, const Request& request) {
  std::string path;
  Body body(request, actor.by.now_ms);
  body.need("project", path);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto project, a.tenants.find_project(path));
  CAPSTAN_CHECK(actor.may(Role::kAdmin, project.organisation));
  CAPSTAN_CHECK(a.tenants.remove_project(actor.by, path));
  return done();
}

Result<Json> add_key(Accounts& a, const Actor& actor, const Request& request) {
  store::KeyRequest wanted;
  Body body(request, actor.by.now_ms);
  body.need("project", wanted.project);
  body.need("name", wanted.name);
  body.read("role", wanted.role);
  body.read("scopes", wanted.scopes);
  body.read("models", wanted.models);
  body.read("tier", wanted.tier);
  body.read_time("expires", wanted.expires_ms);
  body.read("signing", wanted.signing);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto project, a.tenants.find_project(wanted.project));
  CAPSTAN_CHECK(actor.may(Role::kMember, project.organisation, project.id));
  if (actor.key) {
    if (const auto role = store::role_of(wanted.role); role && *role > actor.key->role)
      return fail(Code::kDenied, "a key with the role {} cannot make one with the role {}",
                  store::name_of(actor.key->role), wanted.role);
    if (const auto tier = store::tier_of(wanted.tier); tier && *tier < actor.key->tier)
      return fail(Code::kDenied, "a key of the tier {} cannot make one of the tier {}",
                  store::name_of(actor.key->tier), wanted.tier);
  }
  CAPSTAN_TRY(const auto made, a.tenants.add_key(actor.by, wanted));
  Json out = view(a.tenants, *made.key);
  out["token"] = made.token;
  if (!made.secret_access_key.empty()) out["secret_access_key"] = made.secret_access_key;
  return out;
}

Result<Json> revoke_key(Accounts& a, const Actor& actor, const Request& request) {
  std::string path;
  Body body(request, actor.by.now_ms);
  body.need("key", path);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto key, a.tenants.find_key(path));
  CAPSTAN_CHECK(actor.may(std::max(Role::kMember, key->role), key->organisation, key->project));
  CAPSTAN_CHECK(a.tenants.revoke_key(actor.by, path));
  return done();
}

// An organisation's own limits, and those of everyone, are for who runs the place.
Result<void> may_limit(const Accounts& a, const Actor& actor, store::Subject subject, std::int64_t id) {
  if (!actor.key) return {};
  if (subject != store::Subject::kProject && subject != store::Subject::kKey) return actor.may(Role::kOwner, 0);
  return actor.may(Role::kAdmin, a.tenants.organisation_of(subject, id));
}

Result<Json> set_limit(Accounts& a, const Actor& actor, const Request& request) {
  store::LimitRequest wanted;
  Body body(request, actor.by.now_ms);
  body.read("subject", wanted.subject);
  body.read("model", wanted.model);
  body.need("window", wanted.window);
  body.need("unit", wanted.unit);
  body.need("amount", wanted.amount);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto subject, a.tenants.find_subject(wanted.subject));
  CAPSTAN_CHECK(may_limit(a, actor, subject.subject, subject.id));
  CAPSTAN_TRY(const auto rule, a.tenants.set_limit(actor.by, wanted));
  a.refresh();
  return view(a.tenants, rule, a.state_of_limit(rule.id));
}

Result<Json> remove_limit(Accounts& a, const Actor& actor, const Request& request) {
  const auto id = parse_int(request.param("id"));
  if (!id) return fail(Code::kInvalid, "a limit has a number, not '{}'", request.param("id"));
  for (const auto& rule : a.tenants.limits()) {
    if (rule.id == *id) CAPSTAN_CHECK(may_limit(a, actor, rule.subject, rule.subject_id));
  }
  CAPSTAN_CHECK(a.tenants.remove_limit(actor.by, *id));
  a.refresh();
  return done();
}

Result<Json> list(Accounts& a, const Actor& actor, std::string_view what) {
  const std::int64_t own = actor.organisation();
  Json items = Json::array();
  const auto mine = [&](std::int64_t organisation) { return own == 0 || own == organisation; };
  if (what == "organisations") {
    for (const auto& one : a.tenants.organisations()) {
      if (mine(one.id)) items.push_back(view(one));
    }
  } else if (what == "projects") {
    for (const auto& one : a.tenants.projects()) {
      if (mine(one.organisation)) items.push_back(view(a.tenants, one));
    }
  } else if (what == "keys") {
    for (const auto& one : a.tenants.keys()) {
      if (mine(one->organisation)) items.push_back(view(a.tenants, *one));
    }
  } else {
    for (const auto& one : a.tenants.limits()) {
      if (mine(a.tenants.organisation_of(one.subject, one.subject_id)))
        items.push_back(view(a.tenants, one, a.state_of_limit(one.id)));
    }
  }
  return Json::object({{std::string(what), std::move(items)}});
}

Result<store::UsageOf> usage_of(const Accounts& a, const Actor& actor, const Request& request) {
  store::UsageOf of{.organisation = actor.organisation()};
  const std::string subject = request.query_value("of").value_or("");
  CAPSTAN_TRY(const auto found, a.tenants.find_subject(subject));
  if (actor.key && !subject.empty() && a.tenants.organisation_of(found.subject, found.id) != of.organisation)
    return fail(Code::kDenied, "this key is of another organisation");
  if (found.subject == store::Subject::kOrganisation) of.organisation = found.id;
  if (found.subject == store::Subject::kProject) of.project = found.id;
  if (found.subject == store::Subject::kKey) of.key = found.id;
  if (const std::string model = request.query_value("model").value_or(""); !model.empty())
    of.model = a.catalogue.number_of(model);
  return of;
}

// What sandboxes and tasks used, grouped as the requests are; they have no model, so by model means by kind.
Result<Json> compute_usage(Accounts& a, const store::UsageQuery& of) {
  Json items = Json::array();
  if (of.of.model != 0) return items;
  const store::ComputeBy by = of.by == store::UsageBy::kProject ? store::ComputeBy::kProject
                              : of.by == store::UsageBy::kKey   ? store::ComputeBy::kKey
                              : of.by == store::UsageBy::kDay   ? store::ComputeBy::kDay
                                                                : store::ComputeBy::kKind;
  CAPSTAN_TRY(const auto lines, store::compute_report(a.database, {.by = by,
                                                                   .since_ms = of.since_ms,
                                                                   .until_ms = of.until_ms,
                                                                   .of = {of.of.organisation, of.of.project, of.of.key}}));
  for (const auto& line : lines) items.push_back(view(a.tenants, by, line));
  return items;
}

Result<Json> usage(Accounts& a, const Actor& actor, const Request& request) {
  store::UsageQuery query;
  CAPSTAN_TRY(query.of, usage_of(a, actor, request));
  const std::string by = request.query_value("by").value_or("model");
  if (by == "project") {
    query.by = store::UsageBy::kProject;
  } else if (by == "key") {
    query.by = store::UsageBy::kKey;
  } else if (by == "day") {
    query.by = store::UsageBy::kDay;
  } else if (by != "model") {
    return fail(Code::kInvalid, "'by' cannot be '{}'; known are model, project, key, day", by);
  }
  if (const auto since = request.query_value("since")) {
    CAPSTAN_TRY(query.since_ms, parse_time(*since, now_ms()));
  }
  a.refresh();
  CAPSTAN_TRY(const auto lines, store::usage_report(a.database, query));
  Json items = Json::array();
  for (const auto& line : lines) items.push_back(view(a.tenants, a.catalogue, query.by, line));
  CAPSTAN_TRY(Json compute, compute_usage(a, query));
  return Json::object(
      {{"by", by}, {"since_ms", query.since_ms}, {"usage", std::move(items)}, {"compute", std::move(compute)}});
}

Result<Json> usage_requests(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_TRY(const auto of, usage_of(a, actor, request));
  CAPSTAN_TRY(const std::int64_t limit, query_number(request, "limit", 100));
  a.refresh();
  CAPSTAN_TRY(const auto records, store::usage_records(a.database, of, std::min(limit, kListMax)));
  Json items = Json::array();
  for (const auto& record : records) items.push_back(view(a.tenants, a.catalogue, record));
  return Json::object({{"requests", std::move(items)}});
}

// What programs of the control token's holder used (an agent's sandboxes), for the project of a key, or the default one.
Result<Json> record_agents(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  CAPSTAN_TRY(const Json body, Json::parse(request.body));
  const Json* list = body.find("records");
  if (list == nullptr || !list->is_array() || list->size() > kRecordsMax)
    return fail(Code::kInvalid, "'records' must be an array of at most {} objects", kRecordsMax);
  store::ComputeRecord whose;
  whose.time_ms = actor.by.now_ms;
  whose.kind = "agent";
  whose.project = whose.organisation = 1;
  if (const auto key = body.get_string("key"); key && !key->empty()) {
    CAPSTAN_TRY(const KeyPtr found, a.tenants.find_by_bearer(*key, actor.by.now_ms));
    whose.key = found->id;
    whose.project = found->project;
    whose.organisation = found->organisation;
  }
  std::vector<store::ComputeRecord> records;
  for (const Json& one : list->items()) {
    store::ComputeRecord record = whose;
    record.id = one.get_string("id").value_or("");
    record.name = one.get_string("name").value_or("");
    record.sum.runs = 1;
    for (const auto& [name, out] : {std::pair{"wall_ms", &record.sum.wall_ms},
                                    {"cpu_us", &record.sum.cpu_us},
                                    {"memory_mib_ms", &record.sum.memory_mib_ms},
                                    {"memory_peak_bytes", &record.sum.memory_peak_bytes}}) {
      *out = one.get_int(name).value_or(0);
      if (*out < 0) return fail(Code::kInvalid, "'{}' of record '{}' is negative", name, record.id);
    }
    if (!record.id.starts_with("agent/"))
      return fail(Code::kInvalid, "a record's id must begin with 'agent/', not '{}'", record.id);
    records.push_back(std::move(record));
  }
  CAPSTAN_CHECK(a.database.write([&](store::Session& session) { return store::insert_compute(session, records); }));
  return done();
}

Result<Json> list_models(Accounts& a) {
  Json models = Json::array(), aliases = Json::array();
  for (const auto& model : a.catalogue.models()) models.push_back(view(*model));
  for (const auto& alias : a.catalogue.aliases()) aliases.push_back(view(alias));
  return Json::object({{"models", std::move(models)}, {"aliases", std::move(aliases)}});
}

Result<Json> put_model(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  std::string name;
  if (const auto json = Json::parse(request.body)) name = json->get_string("name").value_or("");
  // What is not said stays as it is.
  const auto known = a.catalogue.find(name);
  store::Model model = known && known->name == name ? *known : store::Model{};
  Body body(request, actor.by.now_ms);
  body.need("name", model.name);
  const std::string source = model.source;
  body.read("source", model.source);
  if (model.source != source) model.upstream_key.clear();  // it was for another server
  body.read("key", model.upstream_key);
  body.read("format", model.format);
  body.read("context_length", model.context_length);
  body.read("modalities", model.modalities);
  body.read("licence", model.licence);
  body.read("price_input", model.price.input);
  body.read("price_cached", model.price.cached);
  body.read("price_output", model.price.output);
  body.read("requests_per_replica", model.requests_per_replica);
  body.read("card", model.card);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_TRY(const auto kept, a.catalogue.put(actor.by, std::move(model)));
  return view(*kept);
}

Result<Json> remove_model(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  std::string name;
  Body body(request, actor.by.now_ms);
  body.need("name", name);
  CAPSTAN_CHECK(body.finish());
  CAPSTAN_CHECK(a.catalogue.remove(actor.by, name));
  return done();
}

// Targets are "model" or "model=weight"; none removes the alias.
Result<Json> set_alias(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  std::string name;
  std::vector<std::string> texts;
  Body body(request, actor.by.now_ms);
  body.need("name", name);
  body.read("targets", texts);
  CAPSTAN_CHECK(body.finish());
  std::vector<store::AliasTarget> targets;
  for (const std::string& text : texts) {
    const auto equals = text.rfind('=');
    const auto weight = equals == std::string::npos ? 1 : parse_int(std::string_view(text).substr(equals + 1));
    if (!weight) return fail(Code::kInvalid, "a target is MODEL or MODEL=WEIGHT, not '{}'", text);
    targets.push_back({text.substr(0, equals), *weight});
  }
  CAPSTAN_CHECK(a.catalogue.set_alias(actor.by, name, std::move(targets)));
  return done();
}

Result<Json> audit(Accounts& a, const Actor& actor, const Request& request) {
  CAPSTAN_CHECK(actor.may(Role::kOwner, 0));
  CAPSTAN_TRY(const std::int64_t since, query_number(request, "since", 0));
  CAPSTAN_TRY(const std::int64_t limit, query_number(request, "limit", 1'000));
  CAPSTAN_TRY(const auto lines, a.tenants.audit(since, std::min(limit, kListMax)));
  Json items = Json::array();
  for (const auto& line : lines) items.push_back(view(line));
  return Json::object({{"audit", std::move(items)}});
}

}  // namespace

bool is_admin_key(const Accounts& accounts, const Request& request) {
  for (const std::string_view path : {"organisations", "projects", "keys", "limits", "usage", "models", "aliases", "audit"}) {
    const std::string prefix = fmt::format("/api/v1/{}", path);
    if (!request.path.starts_with(prefix)) continue;
    if (request.path.size() > prefix.size() && request.path[prefix.size()] != '/') continue;
    const KeyPtr key = key_of(accounts, request);
    return key && key->may(store::Scope::kAdmin);
  }
  return false;
}

void mount_accounts(http::Router& router, Accounts accounts) {
  const auto shared = std::make_shared<Accounts>(std::move(accounts));  // shared by the handlers
  const auto route = [&](std::string method, std::string pattern, auto handler) {
    router.add(std::move(method), "/api/v1/" + pattern,
               [shared, handler](const Request& request, const ResponseWriterPtr& writer) {
                 const Result<Json> result = handler(*shared, actor_of(*shared, request), request);
                 writer->respond(result ? http::Response::json(200, *result) : to_response(result.error()));
               });
  };
  for (const char* what : {"organisations", "projects", "keys", "limits"})
    route("GET", what, [what](Accounts& a, const Actor& actor, const Request&) { return list(a, actor, what); });
  route("POST", "organisations", &add_organisation);
  route("POST", "organisations/{name}/remove", &remove_organisation);
  route("POST", "projects", &add_project);
  route("POST", "projects/remove", &remove_project);
  route("POST", "keys", &add_key);
  route("POST", "keys/revoke", &revoke_key);
  route("POST", "limits", &set_limit);
  route("POST", "limits/{id}/remove", &remove_limit);
  route("GET", "usage", &usage);
  route("GET", "usage/requests", &usage_requests);
  route("POST", "usage/agents", &record_agents);
  route("GET", "models", [](Accounts& a, const Actor&, const Request&) { return list_models(a); });
  route("POST", "models", &put_model);
  route("POST", "models/remove", &remove_model);
  route("POST", "aliases", &set_alias);
  route("GET", "audit", &audit);
}

}  // namespace capstan::api

// How: a change is checked against the index while `changing` is held, written with its audit line in one
// transaction, and applied to the index when that is durable; readers never see what could still be lost.
#include <algorithm>
#include <limits>

#include "base/file.h"
#include "base/text.h"
#include "store/secret_box.h"
#include "store/tenants.h"
#include "store/tenants_index.h"

namespace capstan::store {
namespace {

constexpr std::size_t kNameMax = 63;
constexpr std::int64_t kWeightMax = 10'000;
constexpr std::size_t kKeyModelsMax = 256;
constexpr int kTokenBytes = 24;
constexpr std::size_t kPrefixLength = 11 + 8;  // "sk-capstan-" and eight digits
constexpr std::int64_t kAmountMax = std::int64_t{1} << 60;

Result<void> check_name(std::string_view what, std::string_view name) {
  const bool plain = !name.empty() && name.size() <= kNameMax && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (plain) return {};
  return fail(Code::kInvalid, "the name of {} must be 1 to {} of a-z 0-9 -, not '{}'", what, kNameMax, name);
}

struct Path {
  std::string organisation, project, key;
};
Result<Path> split_path(std::string_view path, std::size_t parts_wanted, std::string_view what) {
  const auto parts = split(path, '/');
  if (parts.size() != parts_wanted)
    return fail(Code::kInvalid, "{} is named {}, not '{}'", what,
                parts_wanted == 2 ? "ORGANISATION/PROJECT" : "ORGANISATION/PROJECT/KEY", path);
  return Path{std::string(parts[0]), std::string(parts[1]), parts.size() > 2 ? std::string(parts[2]) : std::string()};
}

template <class T>
Result<T> one_of(std::optional<T> value, std::string_view what, std::string_view name, std::string_view known) {
  if (value) return *value;
  return fail(Code::kInvalid, "there is no {} '{}'; known are {}", what, name, known);
}

// 20 characters of A-Z and 2-7 (base 32), as access key ids have.
std::string random_access_key_id() {
  std::string id = "CAPS";
  const std::string bytes = from_hex(random_hex(16)).value();
  for (const char c : bytes) id.push_back("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[static_cast<unsigned char>(c) % 32]);
  return id;
}

}  // namespace

Result<void> Tenants::note(Session& session, const Change& by, std::string_view action, std::string_view object,
                           std::string_view detail) {
  const auto noted = session.run(
      "INSERT INTO audit (id, time_ms, actor, action, object, detail) "
      "SELECT coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5 FROM audit",
      {by.now_ms, by.actor, action, object, detail});
  if (!noted) return std::unexpected(noted.error());
  return {};
}

Result<Organisation> Tenants::find_organisation(const std::string& name) const {
  const std::shared_lock lock(index_->mutex);
  if (const Organisation* found = index_->organisation(name)) return *found;
  return fail(Code::kNotFound, "there is no organisation '{}'; `capstan org` lists them", name);
}

Result<Project> Tenants::find_project(const std::string& path) const {
  CAPSTAN_TRY(const Path parts, split_path(path, 2, "a project"));
  CAPSTAN_TRY(const Organisation organisation, find_organisation(parts.organisation));
  const std::shared_lock lock(index_->mutex);
  if (const Project* found = index_->project(organisation.id, parts.project)) return *found;
  return fail(Code::kNotFound, "organisation '{}' has no project '{}'; `capstan project` lists them",
              parts.organisation, parts.project);
}

Result<KeyPtr> Tenants::find_key(const std::string& path) const {
  CAPSTAN_TRY(const Path parts, split_path(path, 3, "a key"));
  CAPSTAN_TRY(const Project project, find_project(parts.organisation + "/" + parts.project));
  const std::shared_lock lock(index_->mutex);
  for (const auto& [id, key] : index_->keys) {
    if (key->project == project.id && key->name == parts.key && key->revoked_ms == 0) return key;
  }
  return fail(Code::kNotFound, "project '{}/{}' has no key '{}'; `capstan key` lists them", parts.organisation,
              parts.project, parts.key);
}

Result<Tenants::SubjectId> Tenants::find_subject(const std::string& path) const {
  if (path.empty()) return SubjectId{};
  switch (std::ranges::count(path, '/')) {
    case 0: {
      CAPSTAN_TRY(const auto found, find_organisation(path));
      return SubjectId{Subject::kOrganisation, found.id};
    }
    case 1: {
      CAPSTAN_TRY(const auto found, find_project(path));
      return SubjectId{Subject::kProject, found.id};
    }
    default: {
      CAPSTAN_TRY(const auto found, find_key(path));
      return SubjectId{Subject::kKey, found->id};
    }
  }
}

Result<Organisation> Tenants::add_organisation(const Change& by, const std::string& name) {
  CAPSTAN_CHECK(check_name("an organisation", name));
  const std::lock_guard changing(index_->changing);
  if (find_organisation(name)) return fail(Code::kConflict, "there is an organisation '{}' already", name);
  const Organisation made{Index::next_id(index_->organisations), name, by.now_ms, 0};
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows, session.run("INSERT INTO organisation VALUES ($1, $2, $3, 0)",
                                             {made.id, made.name, made.created_ms}));
    (void)rows;
    return note(session, by, "organisation.add", name, "");
  }));
  const std::unique_lock lock(index_->mutex);
  index_->organisations[made.id] = made;
  return made;
}

Result<void> Tenants::remove_organisation(const Change& by, const std::string& name) {
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const Organisation found, find_organisation(name));
  if (name == kDefaultName) return fail(Code::kConflict, "organisation 'default' always exists");
  for (const Project& project : projects()) {
    if (project.organisation == found.id)
      return fail(Code::kConflict, "organisation '{}' has projects, such as '{}'; remove them first", name,
                  project.name);
  }
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows,
                session.run("UPDATE organisation SET removed_ms = $1 WHERE id = $2", {by.now_ms, found.id}));
    (void)rows;
    return note(session, by, "organisation.remove", name, "");
  }));
  const std::unique_lock lock(index_->mutex);
  index_->organisations[found.id].removed_ms = by.now_ms;
  return {};
}

Result<Project> Tenants::add_project(const Change& by, const std::string& path, std::int64_t weight) {
  CAPSTAN_TRY(const Path parts, split_path(path, 2, "a project"));
  CAPSTAN_CHECK(check_name("a project", parts.project));
  if (weight < 1 || weight > kWeightMax)
    return fail(Code::kInvalid, "a project's weight must be 1 to {}, not {}", kWeightMax, weight);
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const Organisation organisation, find_organisation(parts.organisation));
  if (find_project(path)) return fail(Code::kConflict, "there is a project '{}' already", path);
  const Project made{Index::next_id(index_->projects), organisation.id, parts.project, weight, by.now_ms, 0};
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows, session.run("INSERT INTO project VALUES ($1, $2, $3, $4, $5, 0)",
                                             {made.id, made.organisation, made.name, made.weight, made.created_ms}));
    (void)rows;
    return note(session, by, "project.add", path, fmt::format("weight {}", weight));
  }));
  const std::unique_lock lock(index_->mutex);
  index_->projects[made.id] = made;
  return made;
}

Result<void> Tenants::remove_project(const Change& by, const std::string& path) {
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const Project found, find_project(path));
  if (found.id == kDefaultProject) return fail(Code::kConflict, "project 'default/default' always exists");
  for (const KeyPtr& key : keys()) {
    if (key->project == found.id)
      return fail(Code::kConflict, "project '{}' has keys, such as '{}'; revoke them first", path, key->name);
  }
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows,
                session.run("UPDATE project SET removed_ms = $1 WHERE id = $2", {by.now_ms, found.id}));
    (void)rows;
    return note(session, by, "project.remove", path, "");
  }));
  const std::unique_lock lock(index_->mutex);
  index_->projects[found.id].removed_ms = by.now_ms;
  return {};
}

Result<NewKey> Tenants::make_key(const Change& by, const KeyRequest& request, const Project& project) const {
  NewKey made;
  Key key;
  key.project = project.id;
  key.organisation = project.organisation;
  key.weight = project.weight;
  key.name = request.name;
  key.models = request.models;
  key.created_ms = by.now_ms;
  key.expires_ms = request.expires_ms;
  CAPSTAN_TRY(key.role, one_of(role_of(request.role), "role", request.role, "reader, member, admin, owner"));
  CAPSTAN_TRY(key.tier, one_of(tier_of(request.tier), "tier", request.tier, "priority, default, flex, batch"));
  CAPSTAN_TRY(key.scopes, scopes_of(request.scopes));
  if (key.models.size() > kKeyModelsMax)
    return fail(Code::kInvalid, "a key may name at most {} models", kKeyModelsMax);
  for (const std::string& model : key.models) {
    if (model.empty() || model.contains(','))
      return fail(Code::kInvalid, "'{}' cannot be a model's name", model);
  }
  if (request.expires_ms != 0 && request.expires_ms <= by.now_ms)
    return fail(Code::kInvalid, "the key would have expired already");
  made.token = "sk-capstan-" + random_hex(kTokenBytes);
  key.prefix = made.token.substr(0, kPrefixLength);
  if (request.signing) {
    key.access_key_id = random_access_key_id();
    made.secret_access_key = random_hex(20);
  }
  key.id = Index::next_id(index_->keys);
  made.key = std::make_shared<const Key>(std::move(key));
  return made;
}

Result<void> Tenants::store_key(const Change& by, const NewKey& made, const std::string& path) {
  const Key& key = *made.key;
  const Digest hash = sha256(made.token);
  const std::string sealed =
      key.access_key_id.empty() ? "" : seal(secrets_key_, made.secret_access_key, key.access_key_id);
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows,
                session.run("INSERT INTO api_key VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0)",
                            {key.id, key.project, key.name, key.prefix, hex(hash), name_of(key.role),
                             names_of_scopes(key.scopes), fmt::format("{}", fmt::join(key.models, ",")),
                             name_of(key.tier), key.access_key_id, sealed, key.created_ms, key.expires_ms}));
    (void)rows;
    return note(session, by, "key.add", path,
                fmt::format("{}… {} {} {}", key.prefix, name_of(key.role), names_of_scopes(key.scopes),
                            name_of(key.tier)));
  }));
  const std::unique_lock lock(index_->mutex);
  index_->put(made.key, hash, sealed);
  return {};
}

Result<NewKey> Tenants::add_key(const Change& by, const KeyRequest& request) {
  CAPSTAN_CHECK(check_name("a key", request.name));
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const Project project, find_project(request.project));
  const std::string path = request.project + "/" + request.name;
  if (find_key(path)) return fail(Code::kConflict, "there is a key '{}' already", path);
  CAPSTAN_TRY(NewKey made, make_key(by, request, project));
  CAPSTAN_CHECK(store_key(by, made, path));
  return made;
}

Result<void> Tenants::revoke_key(const Change& by, const std::string& path) {
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const KeyPtr found, find_key(path));
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows,
                session.run("UPDATE api_key SET revoked_ms = $1 WHERE id = $2", {by.now_ms, found->id}));
    (void)rows;
    return note(session, by, "key.revoke", path, found->prefix + "…");
  }));
  Key revoked = *found;
  revoked.revoked_ms = by.now_ms;
  const auto key = std::make_shared<const Key>(std::move(revoked));
  const std::unique_lock lock(index_->mutex);
  index_->keys[key->id] = key;
  for (auto& [slot, entry] : index_->by_hash) {
    if (entry.key->id == key->id) entry.key = key;
  }
  if (!key->access_key_id.empty()) index_->by_access_key[key->access_key_id].key = key;
  return {};
}

Result<LimitRule> Tenants::set_limit(const Change& by, const LimitRequest& request) {
  LimitRule rule{.model = request.model, .amount = request.amount};
  CAPSTAN_TRY(rule.window,
              one_of(window_of(request.window), "window", request.window, "concurrent, minute, day, month"));
  CAPSTAN_TRY(rule.unit, one_of(unit_of(request.unit), "unit", request.unit,
                                "requests, tokens, input_tokens, output_tokens, nano_dollars"));
  if (rule.amount < 0 || rule.amount > kAmountMax)
    return fail(Code::kInvalid, "a limit must be 0 to {}, not {}", kAmountMax, rule.amount);
  if (rule.window == Window::kConcurrent && rule.unit != Unit::kRequests)
    return fail(Code::kInvalid, "only requests are limited at once, not {}", name_of(rule.unit));
  const std::lock_guard changing(index_->changing);
  CAPSTAN_TRY(const SubjectId subject, find_subject(request.subject));
  rule.subject = subject.subject;
  rule.subject_id = subject.id;
  rule.id = Index::next_id(index_->limits);
  for (const LimitRule& other : limits()) {
    if (other.subject == rule.subject && other.subject_id == rule.subject_id && other.model == rule.model &&
        other.window == rule.window && other.unit == rule.unit)
      rule.id = other.id;
  }
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows,
                session.run("INSERT INTO limit_rule VALUES ($1, $2, $3, $4, $5, $6, $7) "
                            "ON CONFLICT (id) DO UPDATE SET amount = excluded.amount",
                            {rule.id, name_of(rule.subject), rule.subject_id, rule.model, name_of(rule.window),
                             name_of(rule.unit), rule.amount}));
    (void)rows;
    return note(session, by, "limit.set", request.subject.empty() ? "everyone" : request.subject,
                fmt::format("{} {} per {}{}", rule.amount, name_of(rule.unit), name_of(rule.window),
                            rule.model.empty() ? "" : " of " + rule.model));
  }));
  const std::unique_lock lock(index_->mutex);
  index_->limits[rule.id] = rule;
  limits_version_.fetch_add(1, std::memory_order_release);
  return rule;
}

Result<void> Tenants::remove_limit(const Change& by, std::int64_t id) {
  const std::lock_guard changing(index_->changing);
  if (!index_->limits.contains(id))
    return fail(Code::kNotFound, "there is no limit {}; `capstan limit` lists them", id);
  CAPSTAN_CHECK(database_.write([&](Session& session) -> Result<void> {
    CAPSTAN_TRY(const auto rows, session.run("DELETE FROM limit_rule WHERE id = $1", {id}));
    (void)rows;
    return note(session, by, "limit.remove", std::to_string(id), "");
  }));
  const std::unique_lock lock(index_->mutex);
  index_->limits.erase(id);
  limits_version_.fetch_add(1, std::memory_order_release);
  return {};
}

}  // namespace capstan::store

// How: maps by id, read under a shared lock; the hot path is a hash of the token and one lookup. Names are
// searched linearly: only people's commands do that.
#include "store/tenants.h"

#include <algorithm>

#include "base/text.h"
#include "store/secret_box.h"
#include "store/tenants_index.h"

namespace capstan::store {

const Tables kTenantTables{"tenants", {R"(
CREATE TABLE organisation (id BIGINT PRIMARY KEY, name TEXT NOT NULL, created_ms BIGINT NOT NULL,
  removed_ms BIGINT NOT NULL);
CREATE TABLE project (id BIGINT PRIMARY KEY, organisation BIGINT NOT NULL REFERENCES organisation (id),
  name TEXT NOT NULL, weight BIGINT NOT NULL, created_ms BIGINT NOT NULL, removed_ms BIGINT NOT NULL);
CREATE TABLE api_key (id BIGINT PRIMARY KEY, project BIGINT NOT NULL REFERENCES project (id), name TEXT NOT NULL,
  prefix TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, scopes TEXT NOT NULL, models TEXT NOT NULL,
  tier TEXT NOT NULL, access_key_id TEXT NOT NULL, sealed_secret TEXT NOT NULL, created_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL, revoked_ms BIGINT NOT NULL);
CREATE TABLE limit_rule (id BIGINT PRIMARY KEY, subject TEXT NOT NULL, subject_id BIGINT NOT NULL, model TEXT NOT NULL,
  period TEXT NOT NULL, unit TEXT NOT NULL, amount BIGINT NOT NULL);
CREATE TABLE audit (id BIGINT PRIMARY KEY, time_ms BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
  object TEXT NOT NULL, detail TEXT NOT NULL);
INSERT INTO organisation VALUES (1, 'default', 0, 0);
INSERT INTO project VALUES (1, 1, 'default', 1, 0, 0);
)"}};

bool Key::may_use(std::string_view model) const {
  return models.empty() || std::ranges::find(models, model) != models.end();
}

Tenants::Tenants(Database& database, std::string secrets_key)
    : database_(database), secrets_key_(std::move(secrets_key)), index_(std::make_unique<Index>()) {}
Tenants::~Tenants() = default;

Result<std::unique_ptr<Tenants>> Tenants::open(Database& database, const std::filesystem::path& secrets_key) {
  CAPSTAN_TRY(std::string key, load_or_make_key(secrets_key));
  std::unique_ptr<Tenants> tenants(new Tenants(database, std::move(key)));
  CAPSTAN_CHECK(tenants->load());
  return tenants;
}

namespace {

template <class T>
Result<T> known(std::optional<T> value, std::string_view what, std::string_view name) {
  if (value) return *value;
  return fail(Code::kCorrupt, "table of the store: '{}' is no {} that this build knows", name, what);
}

std::vector<std::string> list_of(std::string_view text) {
  std::vector<std::string> out;
  for (const std::string_view part : split(text, ',')) {
    if (!part.empty()) out.emplace_back(part);
  }
  return out;
}

// A row of api_key in the order of its columns, without the hash and the secret.
Result<Key> key_of(const Row& row) {
  Key key;
  key.id = row.integer(0);
  key.project = row.integer(1);
  key.name = row.text(2);
  key.prefix = row.text(3);
  CAPSTAN_TRY(key.role, known(role_of(row.text(5)), "role", row.text(5)));
  CAPSTAN_TRY(key.scopes, scopes_of(list_of(row.text(6))));
  key.models = list_of(row.text(7));
  CAPSTAN_TRY(key.tier, known(tier_of(row.text(8)), "tier", row.text(8)));
  key.access_key_id = row.text(9);
  key.created_ms = row.integer(11);
  key.expires_ms = row.integer(12);
  key.revoked_ms = row.integer(13);
  return key;
}

Result<LimitRule> limit_of(const Row& row) {
  LimitRule rule;
  rule.id = row.integer(0);
  for (const Subject subject : {Subject::kEveryone, Subject::kOrganisation, Subject::kProject, Subject::kKey}) {
    if (name_of(subject) == row.text(1)) rule.subject = subject;
  }
  rule.subject_id = row.integer(2);
  rule.model = row.text(3);
  CAPSTAN_TRY(rule.window, known(window_of(row.text(4)), "window", row.text(4)));
  CAPSTAN_TRY(rule.unit, known(unit_of(row.text(5)), "unit", row.text(5)));
  rule.amount = row.integer(6);
  return rule;
}

Result<KeyPtr> usable(KeyPtr key, std::int64_t now_ms) {
  if (key->revoked_ms != 0) return fail(Code::kDenied, "this key ({}…) was revoked", key->prefix);
  if (key->expires_ms != 0 && key->expires_ms <= now_ms)
    return fail(Code::kDenied, "this key ({}…) has expired", key->prefix);
  return key;
}

}  // namespace

Result<void> Tenants::load() {
  const std::unique_lock lock(index_->mutex);
  CAPSTAN_TRY(const Rows organisations, database_.read("SELECT id, name, created_ms, removed_ms FROM organisation"));
  for (const Row& row : organisations)
    index_->organisations[row.integer(0)] = {row.integer(0), row.text(1), row.integer(2), row.integer(3)};
  CAPSTAN_TRY(const Rows projects,
              database_.read("SELECT id, organisation, name, weight, created_ms, removed_ms FROM project"));
  for (const Row& row : projects) {
    index_->projects[row.integer(0)] = {row.integer(0), row.integer(1), row.text(2),
                                        row.integer(3), row.integer(4), row.integer(5)};
  }
  CAPSTAN_TRY(const Rows keys, database_.read("SELECT id, project, name, prefix, hash, role, scopes, models, tier, "
                                              "access_key_id, sealed_secret, created_ms, expires_ms, revoked_ms "
                                              "FROM api_key"));
  for (const Row& row : keys) {
    CAPSTAN_TRY(Key key, key_of(row));
    const Project& project = index_->projects[key.project];
    key.organisation = project.organisation;
    key.weight = project.weight;
    CAPSTAN_TRY(const std::string bytes, from_hex(row.text(4)));
    Digest hash{};
    if (bytes.size() != hash.size()) return fail(Code::kCorrupt, "the hash of key {} has a wrong length", key.id);
    std::memcpy(hash.data(), bytes.data(), hash.size());
    index_->put(std::make_shared<const Key>(std::move(key)), hash, row.text(10));
  }
  CAPSTAN_TRY(const Rows limits,
              database_.read("SELECT id, subject, subject_id, model, period, unit, amount FROM limit_rule"));
  for (const Row& row : limits) {
    CAPSTAN_TRY(LimitRule rule, limit_of(row));
    index_->limits[rule.id] = std::move(rule);
  }
  return {};
}

Result<KeyPtr> Tenants::find_by_bearer(std::string_view token, std::int64_t now_ms) const {
  const Digest hash = sha256(token);
  const auto text = [](const Digest& digest) {
    return std::string_view(reinterpret_cast<const char*>(digest.data()), digest.size());
  };
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->by_hash.find(Index::slot_of(hash));
  if (found == index_->by_hash.end() || !equal_constant_time(text(found->second.hash), text(hash)))
    return fail(Code::kDenied, "there is no such key; `capstan key add` makes one");
  return usable(found->second.key, now_ms);
}

Result<KeyStore::SigningKey> Tenants::find_signing_secret(std::string_view access_key_id,
                                                          std::int64_t now_ms) const {
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->by_access_key.find(std::string(access_key_id));
  if (found == index_->by_access_key.end())
    return fail(Code::kDenied, "there is no access key of that id; `capstan key add --signing` makes one");
  CAPSTAN_TRY(KeyPtr key, usable(found->second.key, now_ms));
  CAPSTAN_TRY(std::string secret, unseal(secrets_key_, found->second.sealed, access_key_id));
  return SigningKey{std::move(key), std::move(secret)};
}

std::vector<Organisation> Tenants::organisations() const {
  const std::shared_lock lock(index_->mutex);
  std::vector<Organisation> out;
  for (const auto& [id, one] : index_->organisations) {
    if (one.removed_ms == 0) out.push_back(one);
  }
  return out;
}

std::vector<Project> Tenants::projects() const {
  const std::shared_lock lock(index_->mutex);
  std::vector<Project> out;
  for (const auto& [id, one] : index_->projects) {
    if (one.removed_ms == 0) out.push_back(one);
  }
  return out;
}

std::vector<KeyPtr> Tenants::keys() const {
  const std::shared_lock lock(index_->mutex);
  std::vector<KeyPtr> out;
  for (const auto& [id, key] : index_->keys) {
    if (key->revoked_ms == 0) out.push_back(key);
  }
  return out;
}

std::vector<LimitRule> Tenants::limits() const {
  const std::shared_lock lock(index_->mutex);
  std::vector<LimitRule> out;
  for (const auto& [id, rule] : index_->limits) out.push_back(rule);
  return out;
}

Result<std::vector<AuditLine>> Tenants::audit(std::int64_t since, std::int64_t limit) const {
  CAPSTAN_TRY(const Rows rows,
              database_.read("SELECT id, time_ms, actor, action, object, detail FROM audit WHERE id > $1 "
                             "ORDER BY id LIMIT $2",
                             {since, limit}));
  std::vector<AuditLine> out;
  for (const Row& row : rows)
    out.push_back({row.integer(0), row.integer(1), row.text(2), row.text(3), row.text(4), row.text(5)});
  return out;
}

std::string Tenants::project_path(std::int64_t project) const {
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->projects.find(project);
  if (found == index_->projects.end()) return {};
  return index_->organisations.at(found->second.organisation).name + "/" + found->second.name;
}

std::string Tenants::key_path(std::int64_t key) const {
  if (key == 0) return "anonymous";
  std::int64_t project = 0;
  std::string name;
  {
    const std::shared_lock lock(index_->mutex);
    const auto found = index_->keys.find(key);
    if (found == index_->keys.end()) return {};
    project = found->second->project;
    name = found->second->name;
  }
  return project_path(project) + "/" + name;
}

std::string Tenants::subject_path(Subject subject, std::int64_t id) const {
  if (subject == Subject::kProject) return project_path(id);
  if (subject == Subject::kKey) return key_path(id);
  if (subject == Subject::kEveryone) return "everyone";
  const std::shared_lock lock(index_->mutex);
  const auto found = index_->organisations.find(id);
  return found == index_->organisations.end() ? std::string() : found->second.name;
}

std::int64_t Tenants::organisation_of(Subject subject, std::int64_t id) const {
  if (subject == Subject::kOrganisation) return id;
  const std::shared_lock lock(index_->mutex);
  if (subject == Subject::kProject) {
    const auto found = index_->projects.find(id);
    return found == index_->projects.end() ? 0 : found->second.organisation;
  }
  const auto found = index_->keys.find(id);
  return subject == Subject::kEveryone || found == index_->keys.end() ? 0 : found->second->organisation;
}

}  // namespace capstan::store

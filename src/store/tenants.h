// Tenants: organisations > projects > keys, the limits on them, and the audit log of every change.
//
//   CAPSTAN_TRY(auto tenants, Tenants::open(*database, directory / "secrets.key"));
//   CAPSTAN_TRY(auto made, tenants->add_key({"control token", now_ms}, {.project = "acme/web", .name = "ci"}));
//   show(made.token);                                        // once: only its hash is kept
//   CAPSTAN_TRY(KeyPtr key, tenants->find_by_bearer(token, now_ms));
//
// Everything is held in memory and in SQL; a change is durable when its method returns. A bearer key is kept
// as SHA-256 (it has 192 random bits, so a slow hash would add nothing); a signing secret must be known to
// verify SigV4, so it is kept encrypted with AES-256-GCM under a key from a 0600 file of the data directory.
// What was removed or revoked stays in the tables, because usage and audit name it.
//
// Threads: every method from any thread.  Cost: find_by_bearer one SHA-256 and one hash lookup.  Failure:
// kInvalid, kNotFound, kConflict with the object's name; kDenied for a key; else the database's.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/database.h"

namespace capstan::store {

extern const Tables kTenantTables;

// Anonymous requests (loopback without keys) and those with the control token belong to default/default.
inline constexpr std::string_view kDefaultName = "default";
inline constexpr std::int64_t kDefaultProject = 1;

// What a key may do with the scope admin, each including those before it: read; make and revoke keys of its
// project; change its organisation's projects, keys and limits; also change the owners' keys.
enum class Role : std::uint8_t { kReader, kMember, kAdmin, kOwner };
// The order of service when replicas are saturated.
enum class Tier : std::uint8_t { kPriority, kDefault, kFlex, kBatch };
inline constexpr int kTiers = 4;
enum class Scope : std::uint8_t { kInference = 1, kModels = 2, kFiles = 4, kAdmin = 8 };
enum class Window : std::uint8_t { kConcurrent, kMinute, kDay, kMonth };
enum class Unit : std::uint8_t { kRequests, kTokens, kInputTokens, kOutputTokens, kNanoDollars };
enum class Subject : std::uint8_t { kEveryone, kOrganisation, kProject, kKey };

std::string_view name_of(Role role);
std::string_view name_of(Tier tier);
std::string_view name_of(Window window);
std::string_view name_of(Unit unit);
std::string_view name_of(Subject subject);
std::string names_of_scopes(std::uint8_t scopes);  // "inference,models"
std::optional<Role> role_of(std::string_view name);
std::optional<Tier> tier_of(std::string_view name);
std::optional<Window> window_of(std::string_view name);
std::optional<Unit> unit_of(std::string_view name);
Result<std::uint8_t> scopes_of(const std::vector<std::string>& names);

struct Organisation {
  std::int64_t id = 0;
  std::string name;
  std::int64_t created_ms = 0;
  std::int64_t removed_ms = 0;
};

struct Project {
  std::int64_t id = 0;
  std::int64_t organisation = 0;
  std::string name;
  std::int64_t weight = 1;  // its part of saturated replicas, against other projects
  std::int64_t created_ms = 0;
  std::int64_t removed_ms = 0;
};

struct Key {
  std::int64_t id = 0;
  std::int64_t project = 0;
  std::int64_t organisation = 0;  // of the project
  std::int64_t weight = 1;        // of the project
  std::string name;
  std::string prefix;  // the token's beginning, to recognise it by
  Role role = Role::kMember;
  std::uint8_t scopes = 0;
  std::vector<std::string> models;  // that it may use; empty: all
  Tier tier = Tier::kDefault;
  std::string access_key_id;  // for SigV4; empty: bearer only
  std::int64_t created_ms = 0;
  std::int64_t expires_ms = 0;  // 0: never
  std::int64_t revoked_ms = 0;  // 0: it is not

  bool may(Scope scope) const { return (scopes & static_cast<std::uint8_t>(scope)) != 0; }
  bool may_use(std::string_view model) const;
};
using KeyPtr = std::shared_ptr<const Key>;  // shared by the requests under way and the index

// What the gateway needs to know who asks.
class KeyStore {
 public:
  virtual ~KeyStore() = default;
  // kDenied, in words for the client, if there is no such key, or it expired or was revoked. Compares in
  // constant time.
  virtual Result<KeyPtr> find_by_bearer(std::string_view token, std::int64_t now_ms) const = 0;
  struct SigningKey {
    KeyPtr key;
    std::string secret;  // never logged
  };
  virtual Result<SigningKey> find_signing_secret(std::string_view access_key_id, std::int64_t now_ms) const = 0;
};

struct LimitRule {
  std::int64_t id = 0;
  Subject subject = Subject::kEveryone;
  std::int64_t subject_id = 0;
  std::string model = {};  // only requests for it; empty: all
  Window window = Window::kMinute;
  Unit unit = Unit::kRequests;
  std::int64_t amount = 0;
};

// Who changes something, and when.
struct Change {
  std::string actor = {};
  std::int64_t now_ms = 0;
};

struct KeyRequest {
  std::string project = {};  // "acme/web"
  std::string name = {};
  std::string role = "member";
  std::vector<std::string> scopes = {"inference", "models", "files"};
  std::vector<std::string> models = {};
  std::string tier = "default";
  std::int64_t expires_ms = 0;
  bool signing = false;  // also an access key id with a secret, for SigV4
};
struct NewKey {
  KeyPtr key;
  std::string token;
  std::string secret_access_key;
};

struct LimitRequest {
  std::string subject = {};  // "" everyone, "acme", "acme/web", "acme/web/ci"
  std::string model = {};
  std::string window = "minute";
  std::string unit = "requests";
  std::int64_t amount = 0;
};

struct AuditLine {
  std::int64_t id = 0, time_ms = 0;
  std::string actor, action, object, detail;
};

class Tenants : public KeyStore {
 public:
  static Result<std::unique_ptr<Tenants>> open(Database& database, const std::filesystem::path& secrets_key);
  ~Tenants() override;

  Result<KeyPtr> find_by_bearer(std::string_view token, std::int64_t now_ms) const override;
  Result<SigningKey> find_signing_secret(std::string_view access_key_id, std::int64_t now_ms) const override;

  Result<Organisation> add_organisation(const Change& by, const std::string& name);
  Result<void> remove_organisation(const Change& by, const std::string& name);  // without projects only
  Result<Project> add_project(const Change& by, const std::string& path, std::int64_t weight);
  Result<void> remove_project(const Change& by, const std::string& path);  // without live keys only
  Result<NewKey> add_key(const Change& by, const KeyRequest& request);
  Result<void> revoke_key(const Change& by, const std::string& path);
  // Replaces the amount if there is a limit of the same subject, model, window and unit.
  Result<LimitRule> set_limit(const Change& by, const LimitRequest& request);
  Result<void> remove_limit(const Change& by, std::int64_t id);

  std::vector<Organisation> organisations() const;  // those not removed; also the next three
  std::vector<Project> projects() const;
  std::vector<KeyPtr> keys() const;
  std::vector<LimitRule> limits() const;
  Result<std::vector<AuditLine>> audit(std::int64_t since, std::int64_t limit) const;

  Result<Organisation> find_organisation(const std::string& name) const;
  Result<Project> find_project(const std::string& path) const;
  Result<KeyPtr> find_key(const std::string& path) const;  // one that is not revoked
  struct SubjectId {
    Subject subject = Subject::kEveryone;
    std::int64_t id = 0;
  };
  // Of "" (everyone), "acme", "acme/web" or "acme/web/ci".
  Result<SubjectId> find_subject(const std::string& path) const;
  std::int64_t organisation_of(Subject subject, std::int64_t id) const;  // 0 of everyone, or if there is none
  // "acme/web/ci" of ids, of removed ones too; "" if there is none.
  std::string project_path(std::int64_t project) const;
  std::string key_path(std::int64_t key) const;  // "anonymous" of 0
  std::string subject_path(Subject subject, std::int64_t id) const;

  // Grows with each change of a limit: who caches them looks again.
  std::uint64_t limits_version() const { return limits_version_.load(std::memory_order_acquire); }
  // A line of the audit log, for changes of what lies elsewhere (the catalogue).
  static Result<void> note(Session& session, const Change& by, std::string_view action, std::string_view object,
                           std::string_view detail);

 private:
  struct Index;
  Tenants(Database& database, std::string secrets_key);
  Result<void> load();
  Result<NewKey> make_key(const Change& by, const KeyRequest& request, const Project& project) const;
  Result<void> store_key(const Change& by, const NewKey& made, const std::string& path);

  Database& database_;
  const std::string secrets_key_;
  std::unique_ptr<Index> index_;
  std::atomic<std::uint64_t> limits_version_{1};
};

}  // namespace capstan::store

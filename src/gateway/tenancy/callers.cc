#include "gateway/tenancy/callers.h"

#include <algorithm>
#include <chrono>
#include <mutex>

#include "base/sha256.h"
#include "base/text.h"

namespace capstan::gateway {
namespace {

constexpr std::string_view kKeyBegins = "sk-capstan-";

ApiError invalid_key(std::string message) {
  return {.status = 401, .message = std::move(message), .type = "authentication_error", .code = "invalid_api_key"};
}

// "" if there is none.
std::string_view bearer_of(const http::Request& request) {
  const std::string* value = request.headers.find("authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (value == nullptr || value->size() <= kScheme.size() || to_lower(value->substr(0, kScheme.size())) != kScheme)
    return {};
  return trim(std::string_view(*value).substr(kScheme.size()));
}

// The scope that a path needs; inference is asked for by the admission, which knows more.
std::string_view scope_of(std::string_view path) {
  for (const std::string_view prefix : {"/openai/v1/", "/v1/"}) {
    if (!path.starts_with(prefix)) continue;
    const std::string_view rest = path.substr(prefix.size());
    if (rest.starts_with("files") || rest.starts_with("batches")) return "files";
    if (rest.starts_with("models")) return "models";
    return {};
  }
  return path.starts_with("/foundation-models") ? "models" : std::string_view();
}

}  // namespace

std::int64_t unix_now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

CallerPtr Callers::of(const store::KeyPtr& key) {
  {
    const std::shared_lock lock(mutex_);
    const auto found = known_.find(key->id);
    if (found != known_.end() && found->second.key == key) return found->second.caller;
  }
  Caller caller;
  const std::string path = tenants_.project_path(key->project);
  caller.organisation = path.substr(0, path.find('/'));
  caller.project = path.substr(path.find('/') + 1);
  caller.key_id = fmt::format("{}/{}", path, key->name);
  caller.tier = static_cast<ServiceTier>(key->tier);
  const std::string scopes = store::names_of_scopes(key->scopes);
  for (const std::string_view scope : split(scopes, ',')) caller.scopes.emplace_back(scope);
  caller.models = key->models;
  caller.organisation_number = key->organisation;
  caller.project_number = key->project;
  caller.key_number = key->id;
  caller.weight = key->weight;
  auto made = std::make_shared<const Caller>(std::move(caller));
  const std::unique_lock lock(mutex_);
  known_[key->id] = {key, made};
  return made;
}

std::expected<CallerPtr, ApiError> Callers::bearer(std::string_view token, std::int64_t now_ms) {
  const auto key = tenants_.find_by_bearer(token, now_ms);
  if (!key) return std::unexpected(invalid_key(key.error().message));
  return of(*key);
}

std::expected<Callers::Signer, ApiError> Callers::signer(std::string_view access_key_id, std::int64_t now_ms) {
  auto found = tenants_.find_signing_secret(access_key_id, now_ms);
  if (!found)
    return std::unexpected(ApiError{.status = 403,
                                    .message = std::move(found.error().message),
                                    .type = "authentication_error",
                                    .code = "UnrecognizedClientException"});
  return Signer{of(found->key), std::move(found->secret)};
}

BearerAuthenticator::BearerAuthenticator(Callers& callers, BearerOptions options)
    : callers_(callers), options_(std::move(options)) {}

std::expected<CallerPtr, ApiError> BearerAuthenticator::authenticate(const http::Request& request) {
  const std::string_view token = bearer_of(request);
  if (!options_.control_token.empty() && equal_constant_time(token, options_.control_token)) return callers_.anonymous();
  if (!token.starts_with(kKeyBegins)) {
    if (!options_.require_keys) return callers_.anonymous();
    return std::unexpected(invalid_key(
        token.empty() ? "this server needs a key, as 'Authorization: Bearer sk-capstan-…'; `capstan key add` makes one"
                      : "this is no key of this server, which begin with sk-capstan-"));
  }
  auto caller = callers_.bearer(token, options_.now_ms ? options_.now_ms() : unix_now_ms());
  if (!caller) return caller;
  const std::string_view scope = scope_of(request.path);
  const auto& scopes = (*caller)->scopes;
  if (!scope.empty() && std::ranges::find(scopes, scope) == scopes.end())
    return std::unexpected(ApiError{.status = 403,
                                    .message = fmt::format("this key lacks the scope '{}'; it has {}", scope,
                                                           fmt::join(scopes, ", ")),
                                    .type = "permission_error",
                                    .code = "insufficient_permissions"});
  return caller;
}

}  // namespace capstan::gateway

#include "apps/up/tenancy.h"

#include "gateway/bedrock/signing_authenticator.h"
#include "store/compute_usage.h"
#include "store/usage.h"

namespace capstan::apps {

Result<std::unique_ptr<Tenancy>> Tenancy::open(const std::filesystem::path& directory,
                                               const gateway::ReplicaDirectory& replicas,
                                               std::span<const store::Tables* const> more,
                                               const TenancyOptions& options) {
  std::unique_ptr<Tenancy> out(new Tenancy);
  out->options_ = options;
  std::vector<const store::Tables*> tables = {&store::kTenantTables, &store::kCatalogueTables, &store::kUsageTables,
                                              &store::kComputeTables};
  tables.insert(tables.end(), more.begin(), more.end());
  CAPSTAN_TRY(out->database_, store::open_sqlite((directory / "store.sqlite").string(), tables, {}));
  CAPSTAN_TRY(out->tenants_, store::Tenants::open(*out->database_, directory / "secrets.key"));
  CAPSTAN_TRY(out->catalogue_, store::Catalogue::open(*out->database_, directory / "secrets.key"));
  CAPSTAN_TRY(out->meter_, gateway::Meter::open(*out->database_, directory / "usage.ledger"));
  out->callers_ = std::make_unique<gateway::Callers>(*out->tenants_);
  const auto ready = [&replicas] {
    std::map<std::string, int, std::less<>> count;
    for (const auto& replica : replicas.replicas()) count[replica.model] += replica.ready ? 1 : 0;
    return count;
  };
  out->made_ = std::make_unique<gateway::TenantAdmission>(*out->database_, *out->tenants_, *out->catalogue_,
                                                          *out->meter_, ready);
  out->admission_ = out->made_.get();
  return out;
}

void Tenancy::plug_into(gateway::Gateway& gateway) {
  auto bearer = std::make_unique<gateway::BearerAuthenticator>(
      *callers_, gateway::BearerOptions{.require_keys = options_.require_keys, .control_token = options_.control_token});
  const auto signer = [this](const std::string& access_key_id)
      -> std::expected<gateway::bedrock::Signer, gateway::ApiError> {
    auto found = callers_->signer(access_key_id, gateway::unix_now_ms());
    if (!found) return std::unexpected(std::move(found.error()));
    return gateway::bedrock::Signer{std::move(found->caller), std::move(found->secret)};
  };
  gateway.set_authenticator(std::make_unique<gateway::bedrock::SigningAuthenticator>(std::move(bearer), signer));
  gateway.set_admission(std::move(made_));
}

api::Accounts Tenancy::accounts() {
  return {.database = *database_,
          .tenants = *tenants_,
          .catalogue = *catalogue_,
          .state_of_limit = [this](std::int64_t limit) { return admission_->state_of_limit(limit); },
          .refresh =
              [this] {
                admission_->refresh();
                (void)meter_->flush();  // what cannot be written now is not in the answer
              }};
}

}  // namespace capstan::apps

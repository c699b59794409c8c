// Tenants, catalogue, usage and admission of one data directory, put together for the gateway and the control API.
//
//   CAPSTAN_TRY(auto tenancy, Tenancy::open(directory, backend, options));
//   tenancy->plug_into(gateway);
//   api::Api api(backend, {…, tenancy->accounts()}, registry);
//
// Outlives both. Files: store.sqlite, usage.ledger, secrets.key (docs/formats/data-directory.md).
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "api/accounts.h"
#include "gateway/gateway.h"
#include "gateway/metering/meter.h"
#include "gateway/tenancy/callers.h"
#include "gateway/tenancy/tenant_admission.h"
#include "store/catalogue.h"
#include "store/tenants.h"

namespace capstan::apps {

struct TenancyOptions {
  bool require_keys = false;
  std::string control_token;
};

class Tenancy {
 public:
  // `replicas` outlives it. `more`: tables of others in the same database.
  static Result<std::unique_ptr<Tenancy>> open(const std::filesystem::path& directory,
                                               const gateway::ReplicaDirectory& replicas,
                                               std::span<const store::Tables* const> more,
                                               const TenancyOptions& options);
  // Bearer keys and signatures; limits and queues.
  void plug_into(gateway::Gateway& gateway);
  api::Accounts accounts();
  store::Database& database() { return *database_; }
  store::Catalogue& catalogue() { return *catalogue_; }
  const store::Tenants& tenants() const { return *tenants_; }
  gateway::Callers& callers() { return *callers_; }

 private:
  Tenancy() = default;
  TenancyOptions options_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<store::Tenants> tenants_;
  std::unique_ptr<store::Catalogue> catalogue_;
  std::unique_ptr<gateway::Meter> meter_;
  std::unique_ptr<gateway::Callers> callers_;
  std::unique_ptr<gateway::TenantAdmission> made_;  // until plug_into
  gateway::TenantAdmission* admission_ = nullptr;   // then the gateway's
};

}  // namespace capstan::apps

#include "apps/bench_gateway/gateway_process.h"

#include <fmt/format.h>
#include <prometheus/registry.h>

#include <cstdio>
#include <filesystem>
#include <map>

#include "apps/bench_gateway/origin.h"
#include "base/file.h"
#include "base/log.h"
#include "gateway/gateway.h"
#include "gateway/tenancy/callers.h"
#include "gateway/tenancy/tenant_admission.h"
#include "store/usage.h"

namespace capstan::bench_gateway {
namespace {

constexpr std::int64_t kNever = 1'000'000'000'000;  // limits that count and do not refuse

class OneReplica final : public gateway::ReplicaDirectory {
 public:
  OneReplica(int port, bool http2)
      : list_{{.id = "bench-1",
               .model = "bench",
               .url = fmt::format("http://127.0.0.1:{}", port),
               .ready = true,
               .service = "bench",
               .http2 = http2}} {}
  std::vector<gateway::Replica> replicas() const override { return list_; }
  std::uint64_t version() const override { return 1; }
  std::vector<std::pair<std::string, std::string>> waiting() const override { return {}; }

 private:
  std::vector<gateway::Replica> list_;
};

// The key of a project with limits.
Result<std::string> make_key(store::Tenants& tenants) {
  const store::Change by{"bench", gateway::unix_now_ms()};
  CAPSTAN_TRY(const auto organisation, tenants.add_organisation(by, "acme"));
  CAPSTAN_TRY(const auto project, tenants.add_project(by, "acme/web", 1));
  CAPSTAN_TRY(const auto key, tenants.add_key(by, {.project = "acme/web", .name = "bench"}));
  for (const char* unit : {"requests", "tokens"}) {
    CAPSTAN_TRY(const auto limit, tenants.set_limit(by, {.subject = "acme/web/bench", .unit = unit, .amount = kNever}));
  }
  return key.token;
}

Result<void> serve(int origin_port, bool http2, const std::filesystem::path& folder) {
  const store::Tables* const tables[] = {&store::kTenantTables, &store::kCatalogueTables, &store::kUsageTables};
  CAPSTAN_TRY(const auto database, store::open_sqlite((folder / "store.sqlite").string(), tables, {}));
  CAPSTAN_TRY(const auto tenants, store::Tenants::open(*database, folder / "secrets.key"));
  CAPSTAN_TRY(const auto catalogue, store::Catalogue::open(*database));
  CAPSTAN_TRY(const auto meter, gateway::Meter::open(*database, folder / "usage.ledger"));
  CAPSTAN_TRY(const std::string key, make_key(*tenants));
  CAPSTAN_CHECK(write_file_atomic(folder / "key", key, 0600));
  gateway::Callers callers(*tenants);
  const OneReplica replica(origin_port, http2);
  gateway::Gateway gateway(replica, std::make_shared<prometheus::Registry>(), {.access_log = (folder / "access.log").string()});
  gateway.set_authenticator(
      std::make_unique<gateway::BearerAuthenticator>(callers, gateway::BearerOptions{.require_keys = true}));
  gateway.set_admission(std::make_unique<gateway::TenantAdmission>(
      *database, *tenants, *catalogue, *meter, [] { return std::map<std::string, int, std::less<>>{{"bench", 1}}; },
      gateway::AdmissionOptions{.requests_per_replica = 10'000}));
  http::Router router;
  router.add_guard("/", [](const http::Request& request) { return http::refuse_foreign(request, {}); });
  gateway.mount(router);
  if (serve_until_end_of_input(router) != 0) return fail(Code::kUnavailable, "no server");
  return {};
}

}  // namespace

int run_gateway(int origin_port, bool http2, const std::string& folder) {
  log_configure("bench-gateway", LogLevel::kWarn);
  const auto served = serve(origin_port, http2, folder);
  if (!served) fmt::print(stderr, "bench-gateway: {}\n", served.error().message);
  return served ? 0 : 1;
}

}  // namespace capstan::bench_gateway

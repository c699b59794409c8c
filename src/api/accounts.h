// The part of the control API that is about who may infer, how much, and what it cost: organisations, projects,
// keys, limits, usage, the catalogue of models, the audit log. docs/gateway-tenants.md, docs/models.md.
//
// Besides the control token, a key with the scope admin may use these routes for its own organisation, as far as
// its role goes (store::Role). Threads: as the server's pool; changes wait until they are durable.
#pragma once

#include <functional>
#include <utility>

#include "http/server.h"
#include "store/catalogue.h"
#include "store/tenants.h"

namespace capstan::api {

// All of it outlives the router.
struct Accounts {
  store::Database& database;
  store::Tenants& tenants;
  store::Catalogue& catalogue;
  // (used, reserved) of a limit in its window.
  std::function<std::pair<std::int64_t, std::int64_t>(std::int64_t limit)> state_of_limit;
  // Called after limits changed, and before usage is read.
  std::function<void()> refresh;
};

void mount_accounts(http::Router& router, Accounts accounts);
// Whether a request carries a key that these routes let in; they then look at its role themselves.
bool is_admin_key(const Accounts& accounts, const http::Request& request);

}  // namespace capstan::api

// What accounts.h lists, as JSON. Private to api/.
#pragma once

#include <utility>

#include "base/json.h"
#include "store/catalogue.h"
#include "store/compute_usage.h"
#include "store/tenants.h"
#include "store/usage.h"

namespace capstan::api {

Json view(const store::Organisation& organisation);
Json view(const store::Tenants& tenants, const store::Project& project);
Json view(const store::Tenants& tenants, const store::Key& key);  // without its token
Json view(const store::Tenants& tenants, const store::LimitRule& rule, std::pair<std::int64_t, std::int64_t> state);
Json view(const store::Tenants& tenants, const store::Catalogue& catalogue, store::UsageBy by,
          const store::UsageLine& line);
Json view(const store::Tenants& tenants, const store::Catalogue& catalogue, const store::UsageRecord& record);
Json view(const store::Tenants& tenants, store::ComputeBy by, const store::ComputeLine& line);
Json view(const store::Model& model);
Json view(const store::Alias& alias);
Json view(const store::AuditLine& line);

}  // namespace capstan::api

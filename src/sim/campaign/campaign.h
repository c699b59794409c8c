// Campaign: many histories, and what to do with one that fails.
//
// Pure but for what `progress` does.  Threads: one owner.
#pragma once

#include <functional>
#include <string>

#include "sim/campaign/cluster.h"

namespace capstan::sim::campaign {

// Probes that a campaign of kProbesFrom histories or more must have hit.
inline constexpr std::int64_t kProbesFrom = 200;
const std::vector<std::string_view>& probes_wanted();

// A smaller plan that fails in the same way: operations are left out by halves, then one by one. O(operations
// × log) runs.
Plan shrink(const Plan& plan, const std::string& failure, bool acknowledges_early);

// The failure without its numbers and names: what must stay the same while a plan is made smaller.
std::string kind_of(const std::string& failure);

}  // namespace capstan::sim::campaign

// A scenario as the setup of one run.
//
//   CAPSTAN_TRY(Setup setup, setup_of(scenario, seed));
//   World world(std::move(setup));
//
// Failure: kNotFound for failure rates that do not exist.
#pragma once

#include "sim/scenario.h"
#include "sim/world.h"

namespace capstan::sim {

Result<Setup> setup_of(const Scenario& scenario, std::uint64_t seed);

}  // namespace capstan::sim

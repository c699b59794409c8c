// `capstan sim serve REQUESTS`: rehearse replicas of a model with a trace of requests.
#pragma once

#include <CLI/CLI.hpp>

namespace capstan::apps {

// Adds the subcommand; its callback sets `exit_code`: 0, 1 (a file cannot be written), 2 (wrong input).
void add_sim_serve(CLI::App& sim, int& exit_code);

}  // namespace capstan::apps

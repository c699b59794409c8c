// `capstan sandbox check` and `capstan sandbox run`: sandboxes on this machine, without a controller.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/cli.h"

namespace capstan::apps {

void add_sandbox(CLI::App& app, const cli::Globals& globals, int& exit_code);

}  // namespace capstan::apps

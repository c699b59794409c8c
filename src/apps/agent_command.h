// `capstan agent run`, `replay` and `show`: model turns and tool calls in sandboxes on this machine.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/cli.h"

namespace capstan::apps {

void add_agent(CLI::App& app, cli::Globals& globals, int& exit_code);

}  // namespace capstan::apps

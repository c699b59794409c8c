// `capstan sandbox check` and `capstan sandbox run`: sandboxes on this machine, without a controller.
#pragma once

#include <CLI/CLI.hpp>

namespace capstan::apps {

void add_sandbox(CLI::App& app, int& exit_code);

}  // namespace capstan::apps

// `capstan sim run` and `capstan sim replay`.
#pragma once

#include <CLI/CLI.hpp>

namespace capstan::apps {

void add_sim(CLI::App& app, int& exit_code);

}  // namespace capstan::apps

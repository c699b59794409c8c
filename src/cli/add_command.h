// How a subcommand gets its options and its action. Private to cli/.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "cli/cli.h"

namespace capstan::cli {

// The options are shared between the subcommand's fields and its callback, both owned by the App.
template <class Options>
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help,
                      const std::string& example, int& exit_code, std::shared_ptr<Options> options,
                      std::function<int(const Options&)> action) {
  CLI::App* command = app.add_subcommand(name, help);
  command->footer("Example:\n  " + example);
  command->callback([options, action, &exit_code] { exit_code = action(*options); });
  return command;
}

// fleet, hosts, maintain, tenants, reserve, reservations, unreserve, queue, policy, defragment.
void add_scheduling_commands(CLI::App& app, Globals& globals, int& exit_code);

}  // namespace capstan::cli

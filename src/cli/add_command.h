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

// Without a command below it, `group` does `otherwise`; a word that is none of them is refused with those
// there are.
void add_default(CLI::App* group, int& exit_code, std::function<int()> otherwise);

// org, project, key, limit, usage, audit, model.
void add_accounts_commands(CLI::App& app, Globals& globals, int& exit_code);
// fleet, hosts, maintain, tenants, reserve, reservations, unreserve, queue, policy, defragment.
void add_scheduling_commands(CLI::App& app, Globals& globals, int& exit_code);

}  // namespace capstan::cli

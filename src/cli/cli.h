// The command line of `capstan`: every command that talks to a running Capstan, over HTTP only.
//
//   CLI::App app;  Globals globals;  int exit_code = 0;
//   add_client_commands(app, globals, exit_code);   // callbacks run the command and set exit_code
//
// Threads: the main thread.  Output: tables for people, one JSON document with `-o json`, errors on standard
// error.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "cli/api_client.h"
#include "cli/exit_code.h"

namespace CLI {
class App;
}

namespace capstan::cli {

struct Globals {
  ConnectionOptions connection;
  std::string output = "table";  // or "json"
  // Ends worker and ranks of a data directory that has no controller; false if there is no worker either. Set
  // by the main.
  std::function<bool(const std::filesystem::path& data_directory)> stop_worker = {};
  bool json() const { return output == "json"; }
};

// apply, get, describe, logs, cancel, events, explain, run, status, down, chat, version, completion, and
// those of the fleet and its rules (add_command.h).
void add_client_commands(CLI::App& app, Globals& globals, int& exit_code);

// Prints "capstan: message" to standard error, with a hint where there is one.
int report(const Error& error);

}  // namespace capstan::cli

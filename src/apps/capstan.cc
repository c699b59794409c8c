// `capstan`: the command line, `capstan up`, and the worker's process.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/agent_command.h"
#include "apps/journal_command.h"
#include "apps/sandbox_command.h"
#include "apps/sim_command.h"
#include "apps/up/session_host.h"
#include "apps/up/up.h"
#include "apps/up/worker_process.h"
#include "base/log.h"
#include "cli/cli.h"
#include "worker/worker.h"

namespace {

using namespace capstan;

constexpr const char* kFooter = R"(Start with:  capstan up          then, in a second terminal:
             capstan chat 'What is 48217 + 9386?'
             capstan apply -f examples/hello.yaml && capstan get

Exit codes: 0 done, 1 it ran and failed, 2 wrong command line or invalid spec, 3 no such object,
            4 Capstan does not answer, 5 denied, 6 the object's state forbids it)";

void add_up(CLI::App& app, cli::Globals& globals, int& exit_code) {
  auto options = std::make_shared<apps::UpOptions>();  // shared by the options and the callback
  CLI::App* command = app.add_subcommand("up", "Start Capstan on this machine, in the foreground");
  command->footer("Example:\n  capstan up --port 8080");
  command->add_option("--port", options->port, "port of API and gateway")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->add_option("--host", options->host, "address to listen on; one that is not loopback needs TLS")
      ->capture_default_str();
  command->add_option("--tls-cert", options->tls_certificate, "certificate chain (PEM)")
      ->check(CLI::ExistingFile);
  command->add_option("--tls-key", options->tls_key, "its key (PEM)")->check(CLI::ExistingFile);
  command->add_flag("--ephemeral", options->ephemeral, "Ctrl-C stops the ranks too");
  command->add_flag("--require-keys", options->require_keys,
                    "inference needs a key on loopback, too; elsewhere it always does");
  command->add_flag("--bare", options->bare, "do not serve the default model");
  command->callback([options, &globals, &exit_code] {
    options->data_directory = globals.connection.data_directory;
    exit_code = apps::up(*options);
  });
}

void add_worker(CLI::App& app, cli::Globals& globals, int& exit_code) {
  auto options = std::make_shared<worker::WorkerOptions>();  // shared by the options and the callback
  CLI::App* command =
      app.add_subcommand("worker", "The process that starts ranks on this host; `capstan up` starts it")
          ->group("");
  command->add_option("--share", options->share, "folder of models/ and examples/");
  command->callback([options, &globals, &exit_code] {
    options->data_directory = globals.connection.data_directory;
    options->session_host = {"session-host", "--data-dir", globals.connection.data_directory};
    exit_code = worker::run_worker(*options);
  });
  app.add_subcommand("session-host", "The process that has the sandbox sessions of this host; its worker starts it")
      ->group("")
      ->callback([&globals, &exit_code] { exit_code = apps::run_session_host(globals.connection.data_directory); });
}

void add_journal(CLI::App& app, int& exit_code) {
  CLI::App* journal = app.add_subcommand("journal", "Look into a journal");
  journal->require_subcommand(1);
  auto path = std::make_shared<std::string>();  // shared by the option and the callback
  CLI::App* verify = journal->add_subcommand("verify", "Replay a journal and print its state hash");
  verify->footer("Example:\n  capstan journal verify ~/.local/state/capstan/journal.sqlite");
  verify->add_option("file", *path, "journal.sqlite of a data directory")->required();
  verify->callback([path, &exit_code] { exit_code = apps::verify_journal_file(*path); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Capstan turns CPU hosts and accelerators into training, inference and agents.", "capstan"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();  // before the commands are made, which inherit it: `capstan up --data-dir D` and
                      // `capstan --data-dir D up`
  cli::Globals globals;
  globals.stop_worker = [](const std::filesystem::path& data) {
    return apps::WorkerProcess(data, {}).stop();
  };
  int exit_code = 0;
  add_up(app, globals, exit_code);
  cli::add_client_commands(app, globals, exit_code);
  add_journal(app, exit_code);
  apps::add_sim(app, exit_code);
  apps::add_sandbox(app, globals, exit_code);
  apps::add_agent(app, globals, exit_code);
  add_worker(app, globals, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : int{cli::kUsage};
  }
  return exit_code;
}

// How: each command is a CLI11 subcommand whose options live as long as the App (shared with its callback),
// and whose callback calls one function of commands.h.
#include "cli/cli.h"

#include <cstdio>
#include <memory>

#include "base/build_id.h"
#include "cli/add_command.h"
#include "cli/commands.h"
#include "cli/sessions_commands.h"
#include "cli/completion.h"

namespace capstan::cli {
namespace {

void add_submit_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto apply_options = std::make_shared<ApplyOptions>();
  CLI::App* command = add_command<ApplyOptions>(
      app, "apply", "Start or change what a spec file says", "capstan apply -f examples/hello.yaml",
      exit_code, apply_options, [&](const auto& o) { return apply(globals, o); });
  command->add_option("-f,--file", apply_options->file, "the YAML file, or - for standard input")->required();
  command->add_flag("--dry-run", apply_options->dry_run, "say what would change, change nothing");

  command->add_flag("--wait,-w", apply_options->wait, "then wait until all of it has ended, and show progress");

  auto waited = std::make_shared<std::vector<std::string>>();
  command = add_command<std::vector<std::string>>(app, "wait", "Wait until workloads have ended, and show progress",
                                                  "capstan wait squares", exit_code, waited,
                                                  [&](const auto& o) { return wait(globals, o); });
  command->add_option("name", *waited, "names of workloads")->required();

  auto run_options = std::make_shared<RunOptions>();
  command = add_command<RunOptions>(app, "run", "Run one command as a job and show its output",
                                    "capstan run --ranks 2 -- python3 train.py", exit_code, run_options,
                                    [&](const auto& o) { return run(globals, o); });
  command->add_option("--name", run_options->name, "the job's name (default: run- and random digits)");
  command->add_option("--ranks", run_options->ranks, "size of the gang")->check(CLI::Range(1, 1'000'000));
  command->add_option("--cpus", run_options->cpus, "cpus of each rank, for example 0.5");
  command->add_option("--memory", run_options->memory, "memory of each rank, for example 2GiB");
  command->add_option("--env", run_options->env, "NAME=VALUE, repeatable")->allow_extra_args(false);
  command->add_flag("--detach,-d", run_options->detach, "print the name and return at once");
  command->add_option("command", run_options->command, "the command and its words, after --")->required();

  auto names = std::make_shared<std::vector<std::string>>();
  command = add_command<std::vector<std::string>>(app, "cancel", "Stop a workload for good, gracefully",
                                                  "capstan cancel train", exit_code, names,
                                                  [&](const auto& o) { return cancel(globals, o); });
  command->add_option("name", *names, "names of workloads")->required();

  auto scale_options = std::make_shared<ScaleOptions>();
  command = add_command<ScaleOptions>(app, "scale", "Give a service so many replicas", "capstan scale chat 3", exit_code,
                                      scale_options, [&](const auto& o) { return scale(globals, o); });
  command->add_option("name", scale_options->name, "the service")->required();
  command->add_option("replicas", scale_options->replicas, "how many")->required()->check(CLI::NonNegativeNumber);

  auto nothing = std::make_shared<int>();
  add_command<int>(app, "down", "Stop everything on this machine, gracefully; the next `up` resumes it",
                   "capstan down", exit_code, nothing, [&](int) { return down(globals); });
}

void add_view_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto get_options = std::make_shared<GetOptions>();
  CLI::App* command =
      add_command<GetOptions>(app, "get", "List workloads", "capstan get --kind job --state running",
                              exit_code, get_options, [&](const auto& o) { return get(globals, o); });
  command->add_option("name", get_options->name, "only this one");
  command->add_option("--kind", get_options->kind, "job, service, tasks or sandbox")
      ->check(CLI::IsMember({"job", "service", "tasks", "sandbox"}));
  command->add_option("--state", get_options->state, "pending, running, succeeded, …");
  command->add_option("--label,-l", get_options->label, "key=value");
  command->add_flag("--follow,-f", get_options->follow, "then print every change as it happens");
  command->add_flag("--names", get_options->names, "names only");

  for (const auto& [name, help, action] : {std::tuple{"describe", "Everything about one workload", &describe},
                                           {"explain", "Why a workload waits, or what it does", &explain}}) {
    auto workload = std::make_shared<std::string>();
    command = add_command<std::string>(
        app, name, help, std::string("capstan ") + name + " train", exit_code, workload,
        [&globals, action = action](const auto& o) { return action(globals, o); });
    command->add_option("name", *workload, "the workload's name")->required();
  }

  auto log_options = std::make_shared<LogOptions>();
  command = add_command<LogOptions>(app, "logs", "What a rank wrote", "capstan logs train --rank 1 -f",
                                    exit_code, log_options, [&](const auto& o) { return logs(globals, o); });
  command->add_option("name", log_options->name, "the workload's name")->required();
  command->add_option("--rank", log_options->rank, "rank, replica or task")->check(CLI::NonNegativeNumber);
  command->add_option("--attempt", log_options->attempt, "an earlier attempt")->check(CLI::PositiveNumber);
  command->add_option("--tail", log_options->tail_bytes, "only the last bytes")->check(CLI::PositiveNumber);
  command->add_flag("--follow,-f", log_options->follow, "go on until the rank ends");

  auto results_options = std::make_shared<ResultsOptions>();
  command = add_command<ResultsOptions>(app, "results", "What tasks in sandboxes gave: one JSON object a line",
                                        "capstan results squares --failed", exit_code, results_options,
                                        [&](const auto& o) { return results(globals, o); });
  command->add_option("name", results_options->name, "the task array")->required();
  command->add_flag("--failed", results_options->failed, "only tasks that did not succeed");

  auto event_options = std::make_shared<EventOptions>();
  command =
      add_command<EventOptions>(app, "events", "What happened, in order", "capstan events -f", exit_code,
                                event_options, [&](const auto& o) { return events(globals, o); });
  command->add_option("--since", event_options->since, "only events after this number")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--follow,-f", event_options->follow, "go on as it happens");

  auto nothing = std::make_shared<int>();
  add_command<int>(app, "status", "Capstan itself and its hosts", "capstan status", exit_code, nothing,
                   [&](int) { return status(globals); });
}

void add_other_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto chat_options = std::make_shared<ChatOptions>();
  CLI::App* command = add_command<ChatOptions>(app, "chat", "Talk to a model that Capstan serves",
                                               "capstan chat 'What is 48217 + 9386?'", exit_code,
                                               chat_options, [&](const auto& o) { return chat(globals, o); });
  command->add_option("message", chat_options->message, "one question; without it, a conversation");
  command->add_option("--model", chat_options->model, "the model's name (default: abacus if served)");
  command->add_flag("--python", chat_options->python, "offer the model python3, run here after a yes");
  command->add_flag("--no-reasoning", chat_options->no_reasoning, "only the answer");

  auto nothing = std::make_shared<int>();
  add_command<int>(app, "version", "Version and build", "capstan version", exit_code, nothing, [&](int) {
    if (globals.json()) {
      fmt::print("{}\n", Json::object({{"version", kVersion}, {"build", build_id()}}).dump());
    } else {
      fmt::print("capstan {} (build {})\n", kVersion, build_id());
    }
    return int{kOk};
  });

  auto shell = std::make_shared<std::string>();
  command =
      add_command<std::string>(app, "completion", "Shell completion for bash, zsh or fish",
                               "source <(capstan completion bash)", exit_code, shell, [&app](const auto& o) {
                                 const auto script = completion_script(app, o);
                                 if (!script) return report(script.error());
                                 fmt::print("{}", *script);
                                 return int{kOk};
                               });
  command->add_option("shell", *shell, "bash, zsh or fish")->required();
}

}  // namespace

int report(const Error& error) {
  fmt::print(stderr, "capstan: {}\n", error.message);
  return exit_code_for(error.code);
}

void add_client_commands(CLI::App& app, Globals& globals, int& exit_code) {
  app.add_option("--server", globals.connection.server,
                 "URL of a running Capstan (default: the one of the data directory)")
      ->envname("CAPSTAN_SERVER");
  app.add_option("--data-dir", globals.connection.data_directory, "data directory (default: this user's)")
      ->envname("CAPSTAN_DATA_DIR");
  app.add_option("-o,--output", globals.output, "table or json")->check(CLI::IsMember({"table", "json"}));
  add_submit_commands(app, globals, exit_code);
  add_view_commands(app, globals, exit_code);
  add_scheduling_commands(app, globals, exit_code);
  add_accounts_commands(app, globals, exit_code);
  add_sessions_commands(app, globals, exit_code);
  add_other_commands(app, globals, exit_code);
}

}  // namespace capstan::cli

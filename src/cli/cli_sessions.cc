// How: as in cli.cc, for sandboxes.
#include "cli/add_command.h"
#include "cli/sessions_commands.h"

namespace capstan::cli {
namespace {

void add_running(CLI::App& session, Globals& globals, int& exit_code) {
  auto exec = std::make_shared<SessionExecOptions>();
  CLI::App* command = add_command<SessionExecOptions>(
      session, "exec", "Run a command in a sandbox; its exit code is the command's",
      "capstan session exec 1f3a… -- 'ls -la'", exit_code, exec, [&](const auto& o) { return session_exec(globals, o); });
  command->add_option("id", exec->id, "the sandbox")->required();
  command->add_option("command", exec->command, "a program and its arguments, or one word for bash -lc")->required();
  command->add_option("--cwd", exec->cwd, "where it runs (default: /home/user)");
  command->add_option("--env", exec->env, "NAME=VALUE");
  command->add_option("--timeout", exec->timeout_s, "killed after so many seconds (default: never)");
  command->add_flag("-i,--stdin", exec->input, "standard input goes to it");
  command->add_flag("-t,--terminal", exec->terminal, "it gets a terminal");
  auto code = std::make_shared<SessionCodeOptions>();
  command = add_command<SessionCodeOptions>(session, "code", "Run Python in a sandbox; variables stay between calls",
                                            "capstan session code 1f3a… 'sum(range(10))'", exit_code, code,
                                            [&](const auto& o) { return session_code(globals, o); });
  command->add_option("id", code->id, "the sandbox")->required();
  command->add_option("code", code->code, "Python source, or - for standard input")->required();
  auto copy = std::make_shared<SessionCopyOptions>();
  command = add_command<SessionCopyOptions>(session, "cp", "Copy a file into a sandbox or out of it",
                                            "capstan session cp data.csv 1f3a…:data.csv", exit_code, copy,
                                            [&](const auto& o) { return session_copy(globals, o); });
  command->add_option("from", copy->from, "a file, or ID:PATH")->required();
  command->add_option("to", copy->to, "a file, or ID:PATH")->required();
}

void add_life(CLI::App& session, Globals& globals, int& exit_code) {
  auto ids = std::make_shared<std::vector<std::string>>();
  CLI::App* command = add_command<std::vector<std::string>>(
      session, "kill", "End sandboxes", "capstan session kill 1f3a…", exit_code, ids,
      [&](const auto& o) { return session_kill(globals, o); });
  command->add_option("id", *ids, "the sandboxes")->required();
  auto id = std::make_shared<std::string>();
  command = add_command<std::string>(session, "pause", "Stop a sandbox where it is, keeping its memory",
                                     "capstan session pause 1f3a…", exit_code, id,
                                     [&](const auto& o) { return session_pause(globals, o); });
  command->add_option("id", *id, "the sandbox")->required();
  for (const auto& [verb, help, meaning, action] :
       {std::tuple{"resume", "Let a paused sandbox go on", "from now until it ends (default: what it had left, 300 at least)",
                   &session_resume},
        std::tuple{"timeout", "End a sandbox so many seconds from now", "from now until it ends (default 300)",
                   &session_timeout}}) {
    auto options = std::make_shared<SessionTimeOptions>();
    command = add_command<SessionTimeOptions>(session, verb, help, fmt::format("capstan session {} 1f3a… 600", verb),
                                              exit_code, options,
                                              [&globals, action = action](const auto& o) { return action(globals, o); });
    command->add_option("id", options->id, "the sandbox")->required();
    command->add_option("seconds", options->timeout_s, meaning);
  }
  auto snapshot = std::make_shared<SessionSnapshotOptions>();
  command = add_command<SessionSnapshotOptions>(session, "snapshot", "Keep a copy of a sandbox's files, to begin others with",
                                                "capstan session snapshot 1f3a… --name before", exit_code, snapshot,
                                                [&](const auto& o) { return session_snapshot(globals, o); });
  command->add_option("id", snapshot->id, "the sandbox")->required();
  command->add_option("--name", snapshot->name, "another name for it, beside its id");
}

}  // namespace

void add_sessions_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* session = app.add_subcommand("session", "Sandboxes: make them, run in them, end them");
  add_default(session, exit_code, [&] { return session_list(globals); });
  auto options = std::make_shared<SessionCreateOptions>();
  CLI::App* command = add_command<SessionCreateOptions>(*session, "create", "Make a sandbox and print its id",
                                                        "capstan session create --timeout 3600", exit_code, options,
                                                        [&](const auto& o) { return session_create(globals, o); });
  command->add_option("--template", options->form, "what it begins with, or a snapshot")->capture_default_str();
  command->add_option("--timeout", options->timeout_s, "seconds until it ends")->capture_default_str();
  command->add_option("--env", options->env, "NAME=VALUE, for all its commands");
  command->add_option("--metadata", options->metadata, "NAME=VALUE, to find it by");
  command->add_option("--allow", options->allow, "a host that it may reach, if the template permits it; name, *.name, :port");
  command->add_flag("--no-network", options->no_network, "reach nothing, whatever the template gives");
  add_command<int>(*session, "list", "Your sandboxes", "capstan session list", exit_code, std::make_shared<int>(),
                   [&](const auto&) { return session_list(globals); });
  add_command<int>(*session, "templates", "What sandboxes can begin with", "capstan session templates", exit_code,
                   std::make_shared<int>(), [&](const auto&) { return session_templates(globals); });
  add_running(*session, globals, exit_code);
  add_life(*session, globals, exit_code);
}

}  // namespace capstan::cli

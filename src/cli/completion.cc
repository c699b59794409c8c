#include "cli/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <vector>

namespace capstan::cli {
namespace {

struct Entry {
  std::string command;  // "" for the program itself
  std::string description;
  std::vector<std::string> options;  // with those of nested commands
  std::vector<std::string> nested;   // commands below it: "apply", "show"
};

std::vector<std::string> options_of(const CLI::App& app) {
  std::vector<std::string> out;
  for (const CLI::Option* option : app.get_options([](const CLI::Option* o) { return o->nonpositional(); })) {
    for (const std::string& name : option->get_lnames()) out.push_back("--" + name);
  }
  return out;
}

std::vector<Entry> entries_of(const CLI::App& app) {
  std::vector<Entry> out{{"", "", options_of(app), {}}};
  for (const CLI::App* command :
       app.get_subcommands([](const CLI::App* a) { return !a->get_group().empty(); })) {
    Entry entry{command->get_name(), command->get_description(), options_of(*command), {}};
    for (const CLI::App* nested : command->get_subcommands([](const CLI::App*) { return true; })) {
      entry.nested.push_back(nested->get_name());
      for (std::string& option : options_of(*nested)) {
        if (std::ranges::find(entry.options, option) == entry.options.end())
          entry.options.push_back(std::move(option));
      }
    }
    out.push_back(std::move(entry));
  }
  return out;
}

std::string bash(const std::vector<Entry>& entries) {
  std::string commands;
  std::string cases;
  for (const Entry& entry : entries) {
    if (entry.command.empty()) continue;
    commands += entry.command + " ";
    cases += fmt::format("    {}) words=\"{}{}{}\" ;;\n", entry.command, fmt::join(entry.nested, " "),
                         entry.nested.empty() ? "" : " ", fmt::join(entry.options, " "));
  }
  return fmt::format(R"(# bash completion for capstan: source <(capstan completion bash)
_capstan() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words
  case ${{COMP_WORDS[1]}} in
{}    *) words="{}{}" ;;
  esac
  if [[ $COMP_CWORD -eq 1 ]]; then words="{}{}"; fi
  if [[ $COMP_CWORD -ge 2 && $current != -* ]]; then
    case ${{COMP_WORDS[1]}} in
      describe|logs|cancel|scale|explain|get) words=$(capstan get --names 2>/dev/null) ;;
      maintain) words=$(capstan hosts --names 2>/dev/null) ;;
      hosts) if [[ $COMP_CWORD -ge 3 ]]; then words=$(capstan hosts --names 2>/dev/null); fi ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ ${{#COMPREPLY[@]}} -eq 0 ]]; then COMPREPLY=($(compgen -f -- "$current")); fi
}}
complete -F _capstan capstan
)",
                     cases, commands, fmt::join(entries.front().options, " "), commands,
                     fmt::join(entries.front().options, " "));
}

std::string fish(const std::vector<Entry>& entries) {
  std::string out = "# fish completion for capstan: capstan completion fish | source\n";
  for (const Entry& entry : entries) {
    if (entry.command.empty()) continue;
    out += fmt::format("complete -c capstan -n __fish_use_subcommand -a {} -d '{}'\n", entry.command,
                       entry.description);
    for (const std::string& nested : entry.nested) {
      out += fmt::format("complete -c capstan -n '__fish_seen_subcommand_from {}' -a {}\n", entry.command,
                         nested);
    }
    for (const std::string& option : entry.options) {
      out += fmt::format("complete -c capstan -n '__fish_seen_subcommand_from {}' -l {}\n", entry.command,
                         option.substr(2));
    }
  }
  return out;
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, std::string_view shell) {
  const auto entries = entries_of(app);
  if (shell == "bash") return bash(entries);
  if (shell == "zsh") return "autoload -U +X bashcompinit && bashcompinit\n" + bash(entries);
  if (shell == "fish") return fish(entries);
  return fail(Code::kInvalid, "no completion for shell '{}'; known are bash, zsh and fish", shell);
}

}  // namespace capstan::cli

// apply, run, down: what changes something.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <thread>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/events.h"

namespace capstan::cli {
namespace {

std::string or_nothing(const Json& change, std::string_view key) {
  const std::string text = change.get_string(key).value_or("");
  return text.empty() ? "nothing" : text;
}

void print_result(const Json& result) {
  const std::string restarts = result.get_string("restarts").value_or("none");
  fmt::print("{}/{} {}", result.get_string("kind").value_or(""), result.get_string("name").value_or(""),
             result.get_string("action").value_or(""));
  if (restarts != "none") fmt::print(" (restarts: {})", restarts);
  fmt::print("\n");
  const Json* changes = result.find("changes");
  if (changes == nullptr || !changes->is_array()) return;
  for (const Json& change : changes->items()) {
    fmt::print("  {}: {} -> {}\n", change.get_string("path").value_or(""), or_nothing(change, "from"),
               or_nothing(change, "to"));
  }
}

std::string yaml_quote(std::string_view text) {
  std::string out;
  append_json_string(out, text);  // a JSON string is a YAML double-quoted one
  return out;
}

// Started by root, ranks run as another user, who must be able to enter the folder.
bool is_closed_to_ranks(const std::filesystem::path& directory) {
  if (::geteuid() != 0) return false;
  std::error_code ignored;
  for (std::filesystem::path folder = directory; folder != folder.root_path();
       folder = folder.parent_path()) {
    const auto mode = std::filesystem::status(folder, ignored).permissions();
    if ((mode & std::filesystem::perms::others_exec) == std::filesystem::perms::none) return true;
  }
  return false;
}

std::string spec_of(const RunOptions& options, const std::string& name) {
  std::string yaml =
      fmt::format("kind: job\nname: {}\nranks: {}\nrestarts: {{budget: 0}}\n", name, options.ranks);
  const auto here = std::filesystem::current_path();
  if (is_closed_to_ranks(here)) {
    fmt::print(stderr, "capstan: {} is closed to other users; the command runs in a directory of its own\n",
               here.string());
  } else {
    yaml += "workdir: .\n";
  }
  yaml += "command:\n";
  for (const std::string& word : options.command) yaml += fmt::format("  - {}\n", yaml_quote(word));
  if (!options.cpus.empty() || !options.memory.empty()) {
    yaml += "resources:\n";
    if (!options.cpus.empty()) yaml += fmt::format("  cpus: {}\n", yaml_quote(options.cpus));
    if (!options.memory.empty()) yaml += fmt::format("  memory: {}\n", yaml_quote(options.memory));
  }
  if (!options.env.empty()) yaml += "env:\n";
  for (const std::string& pair : options.env) {
    const auto equals = pair.find('=');
    const std::string value = equals == std::string::npos ? "" : pair.substr(equals + 1);
    yaml += fmt::format("  {}: {}\n", yaml_quote(pair.substr(0, equals)), yaml_quote(value));
  }
  return yaml;
}

bool has_ended(const std::string& state) {
  return state == "succeeded" || state == "failed" || state == "cancelled";
}

// Shows rank 0's output as it comes, then waits for the end.
int wait_for(ApiClient& api, const std::string& name) {
  const std::string path = "/api/v1/workloads/" + url_encode(name);
  std::string state;
  bool shown = false;
  while (!has_ended(state)) {
    const auto workload = api.get(path);
    if (!workload) return report(workload.error());
    state = workload->get_string("state").value_or("");
    if (!shown && (state == "running" || has_ended(state))) {
      shown = true;
      const auto streamed = api.stream(path + "/logs?follow=1", [](std::string_view piece) {
        std::fwrite(piece.data(), 1, piece.size(), stdout);
        std::fflush(stdout);
        return true;
      });
      if (!streamed && streamed.error().code != Code::kNotFound) return report(streamed.error());
    } else if (!has_ended(state)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  if (state == "succeeded") return kOk;
  fmt::print(stderr, "capstan: {} {}; see: capstan describe {}\n", name, state, name);
  return kFailed;
}

}  // namespace

Result<std::string> read_input(const std::string& file) {
  if (file != "-") return read_file(file, 16u << 20);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

int apply(const Globals& globals, const ApplyOptions& options) {
  const auto text = read_input(options.file);
  if (!text) return report(text.error());
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  std::error_code ignored;
  const std::filesystem::path file = options.file == "-" ? std::filesystem::current_path() / "-"
                                                         : std::filesystem::absolute(options.file, ignored);
  const std::string path =
      fmt::format("/api/v1/apply?source={}&base_dir={}&dry_run={}",
                  url_encode(options.file == "-" ? "standard input" : options.file),
                  url_encode(file.parent_path().lexically_normal().string()), options.dry_run ? 1 : 0);
  const auto answer = api->post(path, *text, "application/yaml");
  if (!answer) return report(answer.error());
  const Json* results = answer->find("results");
  std::vector<std::string> names;
  if (globals.json()) fmt::print("{}\n", answer->pretty());
  if (results != nullptr && results->is_array()) {
    for (const Json& result : results->items()) {
      if (!globals.json()) print_result(result);
      names.push_back(result.get_string("name").value_or(""));
    }
  }
  std::fflush(stdout);
  return options.wait && !options.dry_run ? wait(globals, names) : kOk;
}

int run(const Globals& globals, const RunOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const std::string name = options.name.empty() ? "run-" + random_hex(4) : options.name;
  const std::string path = fmt::format("/api/v1/apply?source=capstan%20run&base_dir={}",
                                       url_encode(std::filesystem::current_path().string()));
  const auto answer = api->post(path, spec_of(options, name), "application/yaml");
  if (!answer) return report(answer.error());
  if (options.detach) {
    fmt::print("{}\n", name);
    return kOk;
  }
  return wait_for(*api, name);
}

int down(const Globals& globals) {
  // After Ctrl-C, or a killed controller, the worker and its ranks are all there is to stop.
  const auto without_controller = [&](const Error& error) {
    if (error.code != Code::kUnavailable || !globals.stop_worker) return report(error);
    fmt::print("no controller runs; stopping the ranks, gracefully\n");
    std::fflush(stdout);
    if (!globals.stop_worker(data_directory_of(globals.connection))) return report(error);
    fmt::print("Capstan is down; what was running resumes at the next: capstan up\n");
    return int{kOk};
  };
  auto api = ApiClient::connect(globals.connection);
  if (!api) return without_controller(api.error());
  const auto answer = api->post("/api/v1/shutdown", R"({"stop_ranks":true})");
  if (!answer) return without_controller(answer.error());
  fmt::print("stopping everything, gracefully\n");
  // It has left once nothing answers any more; grace periods bound this.
  for (int i = 0; i < 1200; ++i) {
    if (const auto status = api->get("/api/v1/status");
        !status && status.error().code == Code::kUnavailable) {
      fmt::print("Capstan is down; what was running resumes at the next: capstan up\n");
      return kOk;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return report(Error{Code::kTimeout, "Capstan still answers after two minutes; see: capstan get", {}});
}

}  // namespace capstan::cli

// What an agent is asked to do: a model, a prompt, tools, budgets, a sandbox, and how the outcome is judged.
//
//   CAPSTAN_TRY(AgentsSpec spec, …parse_agents(yaml_text, {.source = "task.yaml", .base_directory = "."}));
//   AgentSpec episode = spec.episode(task, episode_number);   // the prompt filled in, a seed of its own
//
// `kind: agent` is one conversation; `kind: agents` is every task, so many episodes each. An AgentSpec is
// whole by itself: its canonical JSON (to_json) stands in each recording and reads back by the same parser,
// since JSON is YAML. YAML form: docs/agents.md.  Threads: values, pure functions (but parse_agents reads the
// files that a spec names). Failure: all diagnostics of a file at once, each with file:line:column and what
// would be right.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "workload/spec.h"

namespace capstan::agents::loop {

inline constexpr std::int64_t kTasksMax = 100'000;
inline constexpr std::int64_t kEpisodesMax = 10'000;  // of one task
inline constexpr std::int64_t kConcurrencyMax = 256;
inline constexpr std::int64_t kFileBytesMax =
    1 << 20;  // of all `files` together: they stand in every recording
inline constexpr std::int64_t kStepsMax = 10'000;
inline constexpr std::int64_t kToolOutputBytesMax = 1 << 20;

using Pairs = std::vector<std::pair<std::string, std::string>>;

enum class Api { kChat, kResponses };
enum class Tool { kPython, kRunCommand, kReadFile, kWriteFile };
std::string_view tool_name(Tool tool);  // "python", "run_command", …
std::optional<Tool> tool_of_name(std::string_view name);

// Dollars per million tokens, to a millionth: so many pico-dollars a token.
struct Prices {
  std::int64_t input = 0, cached = 0, output = 0;
  friend bool operator==(const Prices&, const Prices&) = default;
};

struct ModelSpec {
  std::string name;    // empty: the only one that the server has, or abacus
  std::string server;  // URL of an OpenAI-compatible server; empty: the local Capstan
  Api api = Api::kChat;
  std::string key_env;  // the environment variable with the API key; empty: none (or the local Capstan's own)
  std::string key_file;  // or the file that holds it, absolute
  std::optional<double> temperature;
  std::int64_t seed = 1;
  std::int64_t max_tokens = 4096;  // of one turn
  std::string reasoning_effort;    // empty: the server's default
  std::optional<Prices> price;  // absent: the catalogue's, of a model of the local Capstan
};

// What ends an episode, whatever the model says.
struct Budget {
  std::int64_t steps = 50;        // model turns, tool calls and checks
  std::int64_t tokens = 200'000;  // of prompts and replies together
  std::int64_t time_ms = 600'000;
  std::int64_t micro_dollars = 0;  // 0: no limit
};

struct InsideFile {
  std::string path;  // below /work
  std::string content;
};

struct BoundDirectory {
  std::string from;  // of the host
  std::string path;  // below /work or /mnt; read-only
};

struct SandboxOptions {
  std::int64_t memory_bytes = 256 << 20;
  std::int64_t milli_cpus = 1000;
  std::int64_t pids = 64;
  std::int64_t disk_bytes = 64 << 20;
  bool network = false;  // a loopback of its own, nothing else
  std::string template_root;
  // Of one tool call:
  std::int64_t call_time_ms = 60'000;
  std::int64_t call_cpu_ms = 60'000;
  std::int64_t call_memory_bytes = 0;         // 0: as the sandbox
  std::int64_t call_output_bytes = 16 << 10;  // what the model is told; the middle is left out
  std::vector<InsideFile> files;
  std::vector<BoundDirectory> binds;
};

// Exactly one of both. Python sees `answer`, `reasoning`, `prompt`, `calls` and `task`; a command gets them
// as JSON on standard input.
struct Program {
  std::string python;
  std::vector<std::string> command;
};

enum class Again { kFeedback, kRestart };

// Runs in the sandbox after each answer; if it fails, the model tries again.
struct Check {
  Program program;
  std::int64_t attempts = 3;  // in all
  Again again = Again::kFeedback;
  std::optional<double> temperature;  // from the second attempt on
};

// Runs in the sandbox at the end and gives a number.
struct Score {
  Program program;
  double pass = 1;  // an episode passes with this score or more
};

struct AgentSpec {
  std::string name;
  ModelSpec model;
  std::string instructions;
  std::string prompt;
  std::vector<Tool> tools;
  Budget budget;
  SandboxOptions sandbox;
  std::optional<Check> check;
  std::optional<Score> score;
  Pairs task;  // what fills {{name}} in prompt and files, and what the scorer sees

  Json to_json() const;
  std::string hash() const;  // SHA-256 of the canonical JSON
};

struct AgentsSpec {
  bool array = false;  // kind: agents
  AgentSpec agent;     // without a task: the template of all episodes
  std::vector<Pairs> tasks;
  std::int64_t episodes = 1;  // of each task
  std::int64_t concurrency = 2;
  std::string output;  // a directory; relative to the working directory

  std::int64_t episode_count() const { return static_cast<std::int64_t>(tasks.size()) * episodes; }
  AgentSpec episode(std::size_t task, std::int64_t episode) const;
};

struct ParseOptions {
  std::string source;               // of messages: the file's name
  std::string base_directory = "";  // what the paths in the spec are relative to
  bool filled_in = false;           // of a recording: {{…}} in it is text
};
std::expected<AgentsSpec, std::vector<workload::Diagnostic>> parse_agents(std::string_view text,
                                                                          const ParseOptions& options);
// A spec of a recording.
Result<AgentSpec> agent_from_json(const Json& json);

// `text` with each {{name}} replaced. The first name that is not in `values` is put into `missing`, if there
// is one.
std::string fill_in(std::string_view text, const Pairs& values, std::string* missing = nullptr);

}  // namespace capstan::agents::loop

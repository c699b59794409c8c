// How: the spec is read, the server found and its model chosen, one launcher of sandboxes started; the rest
// is agents/loop. Ctrl-C ends what runs and keeps what is done. `submit` makes a task array of a spec, each
// of whose tasks runs a shard.
#include "apps/agent_command.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>

#include "agents/loop/replay.h"
#include "agents/loop/runner.h"
#include "apps/agent_account.h"
#include "apps/agent_output.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/exit_code.h"
#include "workload/quantity.h"

namespace capstan::apps {
namespace {

using namespace agents::loop;

constexpr std::size_t kKeyBytesMax = 64 << 10;
constexpr std::int64_t kAgentBytes = 64 << 20;  // beside an episode's sandbox

struct Options {
  std::string file, output, server, model;
  std::vector<std::string> files, without;
  std::string shard;  // "0/4"
  std::int64_t concurrency = 0, shards = 1;
  bool json = false, check = false, ask = false;
};

AgentOutput::Form form_of(const Options& options, const cli::Globals& globals) {
  return options.json || globals.json() ? AgentOutput::Form::kJson : AgentOutput::Form::kText;
}

Result<AgentsSpec> read_spec(const std::string& file) {
  CAPSTAN_TRY(const std::string text, read_file(file));
  auto parsed =
      parse_agents(text, {.source = file, .base_directory = std::filesystem::path(file).parent_path()});
  if (parsed) return *std::move(parsed);
  std::string message = parsed.error().size() == 1 ? "" : "the file has mistakes:";
  for (const auto& diagnostic : parsed.error())
    message += (message.empty() ? "" : "\n  ") + diagnostic.text();
  return std::unexpected(Error{Code::kInvalid, std::move(message), {}});
}

Result<Shard> parse_shard(const std::string& text) {
  if (text.empty()) return Shard{};
  const auto parts = split(text, '/');
  const auto index = parse_int(parts.front()), count = parse_int(parts.back());
  if (parts.size() != 2 || !index || !count || *index < 0 || *count <= *index) {
    return fail(Code::kInvalid, "a shard is written as 0/4 to 3/4, not '{}'", text);
  }
  return Shard{*index, *count};
}

Result<std::string> key_of(const ModelSpec& model) {
  if (!model.key_file.empty()) {
    CAPSTAN_TRY(const std::string text, read_file(model.key_file, kKeyBytesMax));
    return std::string(trim(text));
  }
  const char* name = model.key_env.empty() ? "CAPSTAN_API_KEY" : model.key_env.c_str();
  const char* value = std::getenv(name);
  if (value == nullptr && !model.key_env.empty()) {
    return fail(Code::kInvalid, "the environment variable {} is not set; it should hold the API key", name);
  }
  return value == nullptr || (model.key_env.empty() && !model.server.empty()) ? "" : std::string(value);
}

Result<std::string> server_of(const ModelSpec& model, const cli::Globals& globals) {
  if (!model.server.empty()) return model.server;
  CAPSTAN_TRY(const auto api, cli::ApiClient::connect(globals.connection));
  return api.base_url();
}

// A launcher of its own, gone with its cgroups when this is.
class Sandboxes {
 public:
  static Result<std::unique_ptr<Sandboxes>> start(const Options& options, unsigned ready) {
    auto out = std::make_unique<Sandboxes>();
    CAPSTAN_TRY(out->launcher,
                sandbox::Launcher::start({.instance = out->instance,
                                          .without = {options.without.begin(), options.without.end()},
                                          .ready = ready}));
    return out;
  }
  std::string instance = "agent-" + std::to_string(::getpid());
  std::unique_ptr<sandbox::Launcher> launcher;
};

// Calls `stop` at the first SIGINT or SIGTERM; the second ends the process.
class StopAtSignal {
 public:
  explicit StopAtSignal(std::function<void()> stop) : stop_(std::move(stop)) {
    fd_ = ::eventfd(0, EFD_CLOEXEC);
    struct sigaction action = {};
    action.sa_handler = [](int) {
      const std::uint64_t one = 1;
      [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
    };
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
    thread_ = std::thread([this] {
      std::uint64_t count = 0;
      if (::read(fd_, &count, sizeof count) == sizeof count && count < kDone) stop_();
    });
  }
  ~StopAtSignal() {
    [[maybe_unused]] const auto written = ::write(fd_, &kDone, sizeof kDone);
    thread_.join();
    ::signal(SIGINT, SIG_DFL);
    ::signal(SIGTERM, SIG_DFL);
    ::close(fd_);
  }

 private:
  static constexpr std::uint64_t kDone = 1 << 20;
  static inline int fd_ = -1;  // for the handler
  std::function<void()> stop_;
  std::thread thread_;
};

Result<int> run_spec(const Options& options, const cli::Globals& globals) {
  CAPSTAN_TRY(AgentsSpec spec, read_spec(options.file));
  if (!options.server.empty()) spec.agent.model.server = options.server;
  if (!options.model.empty()) spec.agent.model.name = options.model;
  if (!options.output.empty()) spec.output = options.output;
  if (options.concurrency > 0) spec.concurrency = options.concurrency;
  CAPSTAN_TRY(const Shard shard, parse_shard(options.shard));
  if (shard.count > 1 && !spec.array) return fail(Code::kInvalid, "'--shard' is for kind: agents");
  CAPSTAN_TRY(const std::string server, server_of(spec.agent.model, globals));
  CAPSTAN_TRY(const std::string key, key_of(spec.agent.model));
  AgentAccount account(globals.connection, spec.agent.model.server, key);
  spec.agent.model.server
      .clear();  // where the model runs is told beside the spec: it changes nothing that it answers
  if (spec.agent.model.name.empty()) {
    CAPSTAN_TRY(spec.agent.model.name, ModelClient(spec.agent.model.api, server, key).choose_model());
  }
  CAPSTAN_CHECK(account.price(spec));
  CAPSTAN_TRY(const auto sandboxes,
              Sandboxes::start(options, static_cast<unsigned>(std::min<std::int64_t>(spec.concurrency, 8))));
  AgentOutput output(form_of(options, globals));
  RunnerEvents events;
  if (spec.array) {
    output.begin_array(spec, server, (spec.episode_count() - shard.index + shard.count - 1) / shard.count);
    events.on_begin = [&](const EpisodeKey&) { output.episode_began(); };
    events.on_end = [&](const EpisodeResult& result) {
      output.episode(result, spec.tasks[result.key.task]);
      account.record(spec.agent.name, result);
    };
  } else {
    output.begin(spec.episode(0, 0), server);
    events.on_piece = [&](std::string_view piece, bool reasoning) { output.piece(piece, reasoning); };
    events.on_step = [&](const EpisodeKey&, const Step& step) { output.step(step); };
    events.on_end = [&](const EpisodeResult& result) {
      output.end(result.end, result.recording.string());
      account.record(spec.agent.name, result);
    };
  }
  Runner runner(spec, {.launcher = sandboxes->launcher.get(),
                       .server = server,
                       .key = key,
                       .shard = shard,
                       .events = std::move(events)});
  Result<Summary> summary = [&] {
    const StopAtSignal stop([&] { runner.stop(); });
    return runner.run();
  }();
  CAPSTAN_CHECK(summary);
  if (!spec.array) {
    if (summary->failed > 0) return fail(Code::kUnavailable, "{}", summary->failure);
    return runner.results().front().end.passed ? int{cli::kOk} : int{cli::kFailed};
  }
  output.summary(*summary, spec.output);
  return summary->episodes == summary->wanted ? int{cli::kOk} : int{cli::kFailed};
}

std::string shell_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) c == '\'' ? out += "'\\''" : out += c;
  return out + "'";
}

// A task array of `capstan agent run --shard`.
Result<int> submit(const Options& options, const cli::Globals& globals) {
  CAPSTAN_TRY(const AgentsSpec spec, read_spec(options.file));
  if (!spec.array)
    return fail(Code::kInvalid, "{} is a single agent; only kind: agents is submitted", options.file);
  CAPSTAN_TRY(auto api, cli::ApiClient::connect(globals.connection));
  const auto absolute = [](const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
  };
  std::string line = "exec " + shell_quoted(std::filesystem::read_symlink("/proc/self/exe").string()) +
                     " --data-dir " + shell_quoted(absolute(cli::data_directory_of(globals.connection).string())) +
                     " agent run --json -f " + shell_quoted(absolute(options.file)) + " --output " +
                     shell_quoted(absolute(options.output.empty() ? spec.output : options.output)) +
                     " --server " +
                     shell_quoted(spec.agent.model.server.empty() ? api.base_url() : spec.agent.model.server);
  if (!options.model.empty()) line += " --model " + shell_quoted(options.model);
  for (const std::string& each : options.without) line += " --without " + shell_quoted(each);
  line += fmt::format(" --shard \"$CAPSTAN_TASK_INDEX/{}\"", options.shards);
  const SandboxOptions& box = spec.agent.sandbox;
  Json tasks = Json::object({{"kind", "tasks"},
                             {"name", spec.agent.name},
                             {"user", "root"},
                             {"count", options.shards},
                             {"retries", 3}});
  tasks["resources"] =
      Json::object({{"cpus", workload::format_milli_cpus(box.milli_cpus)},
                    {"memory", workload::format_bytes((box.memory_bytes + kAgentBytes) * spec.concurrency)}});
  tasks["command"] = line;
  CAPSTAN_TRY(const Json answer,
              api.post("/api/v1/apply?source=agents&base_dir=%2F", tasks.dump(), "application/yaml"));
  if (globals.json()) {
    fmt::print("{}\n", answer.pretty());
  } else {
    fmt::print(
        "tasks/{0} {1} tasks, {2} episodes; capstan get {0} -f, and when it has ended: capstan agent run -f "
        "{3}\n",
        spec.agent.name, options.shards, spec.episode_count(), options.file);
  }
  return int{cli::kOk};
}

// The recordings that were named, and those below the directories that were: a whole run.
Result<std::vector<std::string>> recordings_of(const std::vector<std::string>& named) {
  std::vector<std::string> files;
  for (const std::string& path : named) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> below;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path, error)) {
      if (entry.path().extension() == ".jsonl") below.push_back(entry.path().string());
    }
    if (below.empty()) return fail(Code::kNotFound, "there are no recordings (*.jsonl) below {}", path);
    std::ranges::sort(below);
    files.insert(files.end(), below.begin(), below.end());
  }
  return files;
}

Result<int> replay_files(const Options& options, const cli::Globals& globals) {
  CAPSTAN_TRY(const std::vector<std::string> files, recordings_of(options.files));
  AgentOutput output(form_of(options, globals));
  std::unique_ptr<Sandboxes> sandboxes;
  if (!options.check) {
    CAPSTAN_TRY(sandboxes, Sandboxes::start(options, 1));
  }
  bool same = true;
  for (const std::string& file : files) {
    CAPSTAN_TRY(const Recording recording, read_recording(file));
    ReplayOptions each;
    std::unique_ptr<Toolbox> tools;
    if (sandboxes != nullptr) {
      CAPSTAN_TRY(tools, Toolbox::open(*sandboxes->launcher, recording.spec.sandbox));
      each.tools = tools.get();
    }
    std::unique_ptr<ModelClient> model;
    if (options.ask) {
      ModelSpec wanted = recording.spec.model;
      wanted.server = options.server;
      CAPSTAN_TRY(const std::string server, server_of(wanted, globals));
      CAPSTAN_TRY(const std::string key, key_of(wanted));
      model = std::make_unique<ModelClient>(wanted.api, server, key);
      each.model = model.get();
    }
    CAPSTAN_TRY(const ReplayReport report, replay(recording, each));
    output.replayed(report, file);
    same = same && report.same();
  }
  return same ? int{cli::kOk} : int{cli::kFailed};
}

Result<int> show_file(const Options& options, const cli::Globals& globals) {
  CAPSTAN_TRY(const Recording recording, read_recording(options.file));
  AgentOutput output(form_of(options, globals));
  output.begin(recording.spec, recording.server);
  for (const Step& step : recording.steps) output.step(step);
  output.end(recording.end, "");
  return int{cli::kOk};
}

int finish(const Result<int>& result) { return result ? *result : cli::report(result.error()); }

void add_run(CLI::App& agent, cli::Globals& globals, int& exit_code) {
  auto options = std::make_shared<Options>();  // shared by the options and the callback
  CLI::App* run =
      agent.add_subcommand("run", "Run an agent, or all episodes of an array that are not recorded yet");
  run->footer("Example:\n  capstan agent run -f examples/agents/check-the-sum.yaml");
  run->add_option("-f,--file", options->file, "kind: agent or kind: agents; see docs/agents.md")
      ->required()
      ->check(CLI::ExistingFile);
  run->add_option("--output", options->output, "directory of the recordings");
  run->add_option("--server", options->server, "URL of an OpenAI-compatible server [the local Capstan]");
  run->add_option("--model", options->model, "in place of the spec's");
  run->add_option("--concurrency", options->concurrency, "episodes at a time")
      ->check(CLI::Range(std::int64_t{1}, kConcurrencyMax));
  run->add_option("--without", options->without,
                  "do without this, if the host cannot enforce it (landlock, cgroup_memory, …)");
  run->add_option("--shard", options->shard, "of an array only every n-th episode: 0/4 to 3/4");
  run->add_flag("--json", options->json, "one JSON object a line");
  run->callback([options, &globals, &exit_code] { exit_code = finish(run_spec(*options, globals)); });
}

void add_replay(CLI::App& agent, cli::Globals& globals, int& exit_code) {
  auto options = std::make_shared<Options>();  // as above
  CLI::App* replays = agent.add_subcommand(
      "replay",
      "Run the tools of recorded episodes again and compare every step; exit code 1 if one differs");
  replays->footer("Example:\n  capstan agent replay word-problems.run");
  replays->add_option("file", options->files, "recordings, or directories with some")->required()->check(CLI::ExistingPath);
  CLI::Option* check =
      replays->add_flag("--check", options->check, "run nothing: only follow the loop through the recording");
  replays->add_flag("--ask", options->ask, "ask the model again, too")->excludes(check);
  replays->add_option("--server", options->server, "of the model [the local Capstan]");
  replays->add_option("--without", options->without, "as for run");
  replays->add_flag("--json", options->json, "one JSON object a recording");
  replays->callback([options, &globals, &exit_code] { exit_code = finish(replay_files(*options, globals)); });
}

void add_submit(CLI::App& agent, cli::Globals& globals, int& exit_code) {
  auto options = std::make_shared<Options>();  // as above
  CLI::App* submits = agent.add_subcommand(
      "submit", "Run an array as scheduled tasks, each a shard of its episodes (Capstan must run as root)");
  submits->footer("Example:\n  capstan agent submit -f examples/agents/word-problems.yaml --shards 2");
  submits->add_option("-f,--file", options->file, "kind: agents")->required()->check(CLI::ExistingFile);
  submits->add_option("--shards", options->shards, "tasks")
      ->required()
      ->check(CLI::Range(std::int64_t{1}, kTasksMax));
  submits->add_option("--output", options->output, "directory of the recordings, which all hosts share");
  submits->add_option("--model", options->model, "in place of the spec's");
  submits->add_option("--without", options->without, "as for run");
  submits->callback([options, &globals, &exit_code] { exit_code = finish(submit(*options, globals)); });
}

}  // namespace

void add_agent(CLI::App& app, cli::Globals& globals, int& exit_code) {
  CLI::App* agent = app.add_subcommand("agent", "Agents: a model with tools in a sandbox (as root)");
  agent->require_subcommand(1);
  add_run(*agent, globals, exit_code);
  add_submit(*agent, globals, exit_code);
  add_replay(*agent, globals, exit_code);
  auto options = std::make_shared<Options>();  // as above
  CLI::App* show = agent->add_subcommand("show", "Print a recording for people");
  show->add_option("file", options->file, "a recording")->required()->check(CLI::ExistingFile);
  show->add_flag("--json", options->json, "one JSON object a line");
  show->callback([options, &globals, &exit_code] { exit_code = finish(show_file(*options, globals)); });
}

}  // namespace capstan::apps

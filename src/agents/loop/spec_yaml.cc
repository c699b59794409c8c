// The YAML form, key by key with workload/yaml_fields.h; what no single key shows is looked at when all are
// read.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "agents/loop/spec.h"
#include "base/file.h"
#include "base/text.h"
#include "workload/quantity.h"
#include "workload/yaml_fields.h"

namespace capstan::agents::loop {
namespace {

using namespace workload;

constexpr std::int64_t kTokensMax = 1'000'000'000;
constexpr std::int64_t kDurationMaxMs = 7LL * 24 * 3600 * 1000;
constexpr std::int64_t kMicroDollarsMax = 1'000'000LL * 1'000'000;
constexpr std::uint64_t kTaskFileBytesMax = 256u << 20;

void read_choice(Context& context, MappingReader& mapping, std::string_view key,
                 std::vector<std::string_view> choices, std::string& out) {
  std::string word;
  read_text(context, mapping, key, word);
  if (word.empty()) return;
  out = word;
  if (std::ranges::find(choices, word) == choices.end()) {
    context.add(*mapping.peek(key),
                fmt::format("'{}' must be {}, not '{}'", key, fmt::join(choices, " or "), word));
  }
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value)
             ? std::optional(value)
             : std::nullopt;
}

// Out stays as it is if the key is absent.
template <class Out>
void read_number(Context& context, MappingReader& mapping, std::string_view key, double low, double high,
                 Out& out) {
  const Yaml* value = mapping.take(key);
  if (value == nullptr || !is_scalar(context, *value, key)) return;
  const auto number = parse_number(value->scalar);
  if (number && *number >= low && *number <= high) {
    out = *number;
  } else {
    context.add(*value, fmt::format("'{}' must be a number from {:g} to {:g}, not '{}'", key, low, high,
                                    value->scalar));
  }
}

// Dollars with at most six decimals, as millionths.
void read_dollars(Context& context, MappingReader& mapping, std::string_view key, std::int64_t& out) {
  double dollars = -1;
  read_number(context, mapping, key, 0, static_cast<double>(kMicroDollarsMax) / 1e6, dollars);
  if (dollars >= 0) out = std::llround(dollars * 1e6);
}

void read_bounded(Context& context, MappingReader& mapping, std::string_view key, QuantityParser parse,
                  Range range, std::string_view range_text, std::int64_t& out) {
  std::int64_t value = out;
  read_quantity(context, mapping, key, parse, value);
  if (value == out) return;
  if (value < range.low || value > range.high) {
    context.add(*mapping.peek(key), fmt::format("'{}' must be {}", key, range_text));
    return;
  }
  out = value;
}

std::string resolved(const Context& context, const std::string& path) {
  return (std::filesystem::path(context.base_directory) / path).lexically_normal().string();
}

void read_price(Context& context, MappingReader& model, std::optional<Prices>& out) {
  const Yaml* node = model.take("price");
  if (node == nullptr) return;
  MappingReader price(context, *node, "'price' (dollars for a million tokens)");
  Prices prices;
  read_dollars(context, price, "input", prices.input);
  prices.cached = prices.input;
  read_dollars(context, price, "cached", prices.cached);
  read_dollars(context, price, "output", prices.output);
  price.finish();
  out = prices;
}

void read_model(Context& context, MappingReader& document, ModelSpec& out) {
  const Yaml* node = document.take("model");
  if (node == nullptr) return;
  if (node->type == Yaml::Type::kScalar) {
    out.name = node->scalar;
    return;
  }
  MappingReader model(context, *node, "'model'");
  read_text(context, model, "name", out.name);
  read_text(context, model, "server", out.server);
  if (!out.server.empty() && !out.server.starts_with("http://") && !out.server.starts_with("https://")) {
    context.add(*model.peek("server"),
                fmt::format("'server' must be a URL such as http://127.0.0.1:8080, not '{}'", out.server));
  }
  std::string api = "chat";
  read_choice(context, model, "api", {"chat", "responses"}, api);
  out.api = api == "responses" ? Api::kResponses : Api::kChat;
  read_text(context, model, "key_env", out.key_env);
  read_text(context, model, "key_file", out.key_file);
  if (!out.key_file.empty())
    out.key_file = std::filesystem::absolute(resolved(context, out.key_file)).lexically_normal().string();
  if (!out.key_env.empty() && !out.key_file.empty())
    context.add(*model.peek("key_file"), "the key is in 'key_env' or in 'key_file', not in both");
  read_number(context, model, "temperature", 0, 2, out.temperature);
  read_integer(context, model, "seed", {0, 1'000'000'000'000}, out.seed);
  read_integer(context, model, "max_tokens", {1, 10'000'000}, out.max_tokens);
  read_choice(context, model, "reasoning_effort", {"none", "minimal", "low", "medium", "high", "xhigh"},
              out.reasoning_effort);
  read_price(context, model, out.price);
  model.finish();
}

void read_tools(Context& context, MappingReader& document, std::vector<Tool>& out) {
  const Yaml* node = document.take("tools");
  if (node == nullptr) return;
  if (node->type != Yaml::Type::kSequence) {
    context.add(*node,
                fmt::format("'tools' must be a list such as [python, read_file], not {}", node->type_name()));
    return;
  }
  static constexpr std::string_view kNames[] = {"python", "run_command", "read_file", "write_file"};
  for (const Yaml& item : node->items) {
    if (!is_scalar(context, item, "tools")) continue;
    const auto tool = tool_of_name(item.scalar);
    std::string hint;
    if (!tool) {
      context.add(item.line, item.column,
                  fmt::format("unknown tool '{}'; {}", item.scalar, did_you_mean(item.scalar, kNames, hint)),
                  hint);
    } else if (std::ranges::find(out, *tool) != out.end()) {
      context.add(item, fmt::format("tool '{}' is given twice", item.scalar));
    } else {
      out.push_back(*tool);
    }
  }
}

void read_budget(Context& context, MappingReader& document, const ModelSpec& model, Budget& out) {
  const Yaml* node = document.take("budget");
  if (node == nullptr) return;
  MappingReader budget(context, *node, "'budget'");
  read_integer(context, budget, "steps", {1, kStepsMax}, out.steps);
  read_integer(context, budget, "tokens", {1, kTokensMax}, out.tokens);
  read_bounded(context, budget, "time", parse_duration_ms, {1, kDurationMaxMs}, "from 1ms to 7d",
               out.time_ms);
  read_dollars(context, budget, "dollars", out.micro_dollars);
  if (out.micro_dollars > 0 && !model.price && !model.server.empty()) {
    context.add(
        *budget.peek("dollars"),
        "'dollars' needs to know what tokens cost; write for example 'price: {input: 0.07, output: 0.30}' "
        "in 'model' (dollars for a million tokens)");
  }
  budget.finish();
}

bool is_below(const std::string& path, std::initializer_list<std::string_view> roots) {
  const auto normal = std::filesystem::path(path).lexically_normal().string();
  return normal == path && std::ranges::any_of(roots, [&](std::string_view root) {
           return path.starts_with(root) && path.size() > root.size();
         });
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

void read_inside_file(Context& context, const Yaml& item, SandboxOptions& out) {
  MappingReader file(context, item, "a file (such as {path: /work/data.csv, from: data.csv})");
  if (item.type != Yaml::Type::kMapping) return;
  InsideFile inside;
  std::string from;
  read_text(context, file, "path", inside.path);
  read_text(context, file, "content", inside.content);
  read_text(context, file, "from", from);
  file.finish();
  if (!is_below(inside.path, {"/work/"})) {
    context.add(item, fmt::format("a file's 'path' must be below /work, such as /work/data.csv, not '{}'",
                                  inside.path));
  }
  if (from.empty() != (file.peek("content") != nullptr)) {
    context.add(item, "a file has either 'content' (its text) or 'from' (a file of this machine)");
    return;
  }
  if (!from.empty()) {
    auto text = read_file(resolved(context, from), kFileBytesMax);
    if (!text) {
      context.add(*file.peek("from"), text.error().message);
      return;
    }
    inside.content = *std::move(text);
  }
  if (!is_utf8(inside.content)) {
    context.add(item,
                "a file must be UTF-8 text, since it stands in every recording; use 'binds' for other data");
  }
  out.files.push_back(std::move(inside));
}

void read_files(Context& context, MappingReader& sandbox, SandboxOptions& out) {
  if (const Yaml* files = sandbox.take("files"); files != nullptr) {
    if (files->type != Yaml::Type::kSequence) context.add(*files, "'files' must be a list");
    for (const Yaml& item : files->items) read_inside_file(context, item, out);
    std::int64_t bytes = 0;
    for (const InsideFile& file : out.files) bytes += static_cast<std::int64_t>(file.content.size());
    if (bytes > kFileBytesMax) {
      context.add(*files,
                  fmt::format("'files' have {} bytes together, the limit is {}; use 'binds' for large data",
                              bytes, kFileBytesMax));
    }
  }
  const Yaml* binds = sandbox.take("binds");
  if (binds == nullptr) return;
  if (binds->type != Yaml::Type::kSequence) context.add(*binds, "'binds' must be a list");
  for (const Yaml& item : binds->items) {
    MappingReader bind(context, item, "a bind (such as {from: data, path: /mnt/data})");
    if (item.type != Yaml::Type::kMapping) continue;
    BoundDirectory& bound = out.binds.emplace_back();
    read_text(context, bind, "from", bound.from);
    read_text(context, bind, "path", bound.path);
    bind.finish();
    bound.from = std::filesystem::absolute(resolved(context, bound.from)).lexically_normal().string();
    if (!is_below(bound.path, {"/work/", "/mnt/"})) {
      context.add(item, fmt::format("a bind's 'path' must be below /mnt or /work, not '{}'", bound.path));
    }
  }
}

void read_sandbox(Context& context, MappingReader& document, SandboxOptions& out) {
  const Yaml* node = document.take("sandbox");
  if (node == nullptr) return;
  constexpr Range kBytes{1 << 20, 1LL << 42};
  MappingReader sandbox(context, *node, "'sandbox'");
  read_bounded(context, sandbox, "memory", parse_bytes, {8 << 20, kBytes.high}, "from 8MiB to 4TiB",
               out.memory_bytes);
  read_bounded(context, sandbox, "cpus", parse_milli_cpus, {10, 1'024'000}, "from 0.01 to 1024",
               out.milli_cpus);
  read_integer(context, sandbox, "processes", {1, 30'000}, out.pids);
  read_bounded(context, sandbox, "disk", parse_bytes, kBytes, "from 1MiB to 4TiB", out.disk_bytes);
  std::string network = "none";
  read_choice(context, sandbox, "network", {"none", "loopback"}, network);
  out.network = network == "loopback";
  read_text(context, sandbox, "template", out.template_root);
  if (!out.template_root.empty()) {
    out.template_root =
        std::filesystem::absolute(resolved(context, out.template_root)).lexically_normal().string();
  }
  if (const Yaml* limits = sandbox.take("call"); limits != nullptr) {
    MappingReader call(context, *limits, "'call' (limits of one tool call)");
    constexpr std::string_view kTimes = "from 10ms to 7d";
    read_bounded(context, call, "time", parse_duration_ms, {10, kDurationMaxMs}, kTimes, out.call_time_ms);
    read_bounded(context, call, "cpu_time", parse_duration_ms, {10, kDurationMaxMs}, kTimes, out.call_cpu_ms);
    read_bounded(context, call, "memory", parse_bytes, {8 << 20, kBytes.high}, "from 8MiB to 4TiB",
                 out.call_memory_bytes);
    read_bounded(context, call, "output", parse_bytes, {256, kToolOutputBytesMax}, "from 256 bytes to 1MiB",
                 out.call_output_bytes);
    call.finish();
  }
  read_files(context, sandbox, out);
  sandbox.finish();
}

bool read_program(Context& context, MappingReader& mapping, std::string_view what, Program& out) {
  read_text(context, mapping, "python", out.python);
  if (const Yaml* command = mapping.take("command"); command != nullptr) {
    if (command->type == Yaml::Type::kScalar) out.command = {"/bin/sh", "-c", command->scalar};
    for (const Yaml& word : command->items) {
      if (is_scalar(context, word, "command")) out.command.push_back(word.scalar);
    }
  }
  if (out.python.empty() == out.command.empty()) {
    context.add(mapping.node(),
                fmt::format("{} needs either 'python' (code) or 'command' (a shell line or a list of "
                            "words)",
                            what));
    return false;
  }
  return true;
}

void read_check(Context& context, MappingReader& document, std::optional<Check>& out) {
  const Yaml* node = document.take("check");
  if (node == nullptr) return;
  MappingReader fields(context, *node, "'check'");
  Check& check = out.emplace();
  read_program(context, fields, "'check'", check.program);
  read_integer(context, fields, "attempts", {1, 100}, check.attempts);
  std::string again = "feedback";
  read_choice(context, fields, "again", {"feedback", "restart"}, again);
  check.again = again == "restart" ? Again::kRestart : Again::kFeedback;
  read_number(context, fields, "temperature", 0, 2, check.temperature);
  fields.finish();
}

void read_score(Context& context, MappingReader& document, std::optional<Score>& out) {
  const Yaml* node = document.take("score");
  if (node == nullptr) return;
  MappingReader fields(context, *node, "'score'");
  Score& score = out.emplace();
  read_program(context, fields, "'score'", score.program);
  read_number(context, fields, "pass", -1e12, 1e12, score.pass);
  fields.finish();
}

Pairs read_task(Context& context, const Yaml& node) {
  Pairs out;
  MappingReader fields(context, node, "a task");
  for (const auto& [key, value] : node.members) {
    if (value.type == Yaml::Type::kSequence || value.type == Yaml::Type::kMapping) {
      context.add(value,
                  fmt::format("'{}' of a task must be a single value, not {}", key.text, value.type_name()));
    }
    out.emplace_back(key.text, value.scalar);
  }
  return out;
}

void read_task_file(Context& context, const Yaml& at, const std::string& name, std::vector<Pairs>& out) {
  const auto text = read_file(resolved(context, name), kTaskFileBytesMax);
  if (!text) return context.add(at, text.error().message);
  int number = 0;
  for (const std::string_view line : split(*text, '\n')) {
    ++number;
    if (trim(line).empty()) continue;
    const auto json = Json::parse(line);
    if (!json || !json->is_object()) {
      return context.add(
          at, fmt::format("{}:{}: each line must be a JSON object such as {{\"question\": \"…\"}}{}", name,
                          number, json ? "" : ": " + json.error().message));
    }
    Pairs& task = out.emplace_back();
    for (const auto& [key, value] : json->members()) {
      task.emplace_back(key, value.is_string() ? value.as_string() : value.dump());
    }
  }
}

void read_tasks(Context& context, MappingReader& document, AgentsSpec& out) {
  const Yaml* node = document.take("tasks");
  if (node == nullptr) {
    context.add(document.node(),
                "'tasks' is missing; write a list of mappings, or the name of a file with a JSON object on "
                "each line");
    return;
  }
  if (node->type == Yaml::Type::kScalar) read_task_file(context, *node, node->scalar, out.tasks);
  for (const Yaml& item : node->items) out.tasks.push_back(read_task(context, item));
  if (out.tasks.empty()) context.add(*node, "'tasks' holds none");
  if (static_cast<std::int64_t>(out.tasks.size()) > kTasksMax) {
    context.add(*node, fmt::format("'tasks' holds {}, the limit is {}", out.tasks.size(), kTasksMax));
  }
}

// Every {{name}} must be a value of every task.
void check_names(Context& context, const MappingReader& document, const AgentsSpec& spec) {
  for (std::size_t i = 0; i < spec.tasks.size(); ++i) {
    const auto look = [&](const Yaml* at, std::string_view text) {
      std::string missing;
      fill_in(text, spec.tasks[i], &missing);
      if (at != nullptr && !missing.empty()) {
        context.add(*at, fmt::format("'{{{{{}}}}}' is no value of task {}", missing, i + 1));
      }
    };
    look(document.peek("prompt"), spec.agent.prompt);
    look(document.peek("instructions"), spec.agent.instructions);
    if (context.diagnostics.size() >= static_cast<std::size_t>(kDiagnosticsMax)) return;
  }
}

void read_document(Context& context, const Yaml& node, bool filled_in, AgentsSpec& out) {
  MappingReader document(context, node, "an agent");
  if (node.type != Yaml::Type::kMapping) return;
  std::string kind;
  read_choice(context, document, "kind", {"agent", "agents"}, kind);
  if (kind.empty())
    context.add(node, "'kind' is missing; write 'kind: agent', or 'kind: agents' for many episodes");
  out.array = kind == "agents";
  AgentSpec& agent = out.agent;
  read_name(context, document, "name", true, agent.name);
  read_model(context, document, agent.model);
  read_text(context, document, "instructions", agent.instructions);
  read_text(context, document, "prompt", agent.prompt);
  if (agent.prompt.empty()) context.add(node, "'prompt' is missing: what the model is asked");
  read_tools(context, document, agent.tools);
  read_budget(context, document, agent.model, agent.budget);
  read_sandbox(context, document, agent.sandbox);
  read_check(context, document, agent.check);
  read_score(context, document, agent.score);
  if (out.array) {
    out.output = agent.name + ".run";
    read_text(context, document, "output", out.output);
    read_tasks(context, document, out);
    read_integer(context, document, "episodes", {1, kEpisodesMax}, out.episodes);
    read_integer(context, document, "concurrency", {1, kConcurrencyMax}, out.concurrency);
    document.refuse("task", "'task' is for kind: agent; write 'tasks' and a list");
  } else {
    out.output = agent.name + ".run";
    read_text(context, document, "output", out.output);
    if (const Yaml* task = document.take("task"); task != nullptr) agent.task = read_task(context, *task);
    out.tasks = {agent.task};
    for (const std::string_view key : {"tasks", "episodes", "concurrency"}) {
      document.refuse(key, fmt::format("'{}' is for kind: agents", key));
    }
  }
  if (!filled_in && (out.array || !agent.task.empty())) check_names(context, document, out);
  document.finish();
}

}  // namespace

std::expected<AgentsSpec, std::vector<Diagnostic>> parse_agents(std::string_view text,
                                                                const ParseOptions& options) {
  const auto documents = read_yaml(text, options.source);
  if (!documents) return std::unexpected(std::vector<Diagnostic>{documents.error()});
  Context context{options.source, options.base_directory};
  AgentsSpec out;
  if (documents->size() != 1) {
    context.add(1, 1,
                fmt::format("the file must hold one document, it holds {}; start with 'kind: agent'",
                            documents->size()));
  } else {
    read_document(context, documents->front(), options.filled_in, out);
  }
  if (!context.diagnostics.empty()) return std::unexpected(std::move(context.diagnostics));
  return out;
}

Result<AgentSpec> agent_from_json(const Json& json) {
  auto parsed = parse_agents(json.dump(), {.source = "recording", .filled_in = true});
  if (!parsed)
    return fail(Code::kCorrupt, "the recording's spec cannot be read: {}", parsed.error().front().text());
  return std::move(parsed->agent);
}

}  // namespace capstan::agents::loop

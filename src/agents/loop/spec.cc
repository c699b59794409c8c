// Canonical JSON in the words of the YAML form, so that one parser reads both; templates; episodes of an
// array.
#include "agents/loop/spec.h"

#include <algorithm>

#include "base/sha256.h"
#include "base/text.h"
#include "workload/quantity.h"

namespace capstan::agents::loop {
namespace {

constexpr std::pair<Tool, std::string_view> kTools[] = {{Tool::kPython, "python"},
                                                        {Tool::kRunCommand, "run_command"},
                                                        {Tool::kReadFile, "read_file"},
                                                        {Tool::kWriteFile, "write_file"}};

std::string dollars(std::int64_t micro) {
  return fmt::format("{}.{:06d}", micro / 1'000'000, micro % 1'000'000);
}

Json model_json(const ModelSpec& model) {
  Json out = Json::object({{"name", model.name}, {"api", model.api == Api::kChat ? "chat" : "responses"}});
  if (!model.server.empty()) out["server"] = model.server;
  if (!model.key_env.empty()) out["key_env"] = model.key_env;
  if (!model.key_file.empty()) out["key_file"] = model.key_file;
  if (model.temperature) out["temperature"] = *model.temperature;
  out["seed"] = model.seed;
  out["max_tokens"] = model.max_tokens;
  if (!model.reasoning_effort.empty()) out["reasoning_effort"] = model.reasoning_effort;
  if (model.price) {
    out["price"] = Json::object({{"input", dollars(model.price->input)},
                                 {"cached", dollars(model.price->cached)},
                                 {"output", dollars(model.price->output)}});
  }
  return out;
}

Json sandbox_json(const SandboxOptions& sandbox) {
  using namespace workload;
  Json out = Json::object({{"memory", format_bytes(sandbox.memory_bytes)},
                           {"cpus", format_milli_cpus(sandbox.milli_cpus)},
                           {"processes", sandbox.pids},
                           {"disk", format_bytes(sandbox.disk_bytes)},
                           {"network", sandbox.network ? "loopback" : "none"}});
  if (!sandbox.template_root.empty()) out["template"] = sandbox.template_root;
  Json call = Json::object({{"time", format_duration_ms(sandbox.call_time_ms)},
                            {"cpu_time", format_duration_ms(sandbox.call_cpu_ms)},
                            {"output", format_bytes(sandbox.call_output_bytes)}});
  if (sandbox.call_memory_bytes > 0) call["memory"] = format_bytes(sandbox.call_memory_bytes);
  out["call"] = std::move(call);
  for (const InsideFile& file : sandbox.files) {
    out["files"].push_back(Json::object({{"path", file.path}, {"content", file.content}}));
  }
  for (const BoundDirectory& bind : sandbox.binds) {
    out["binds"].push_back(Json::object({{"from", bind.from}, {"path", bind.path}}));
  }
  return out;
}

void add_program(Json& out, const Program& program) {
  if (!program.python.empty()) out["python"] = program.python;
  for (const std::string& word : program.command) out["command"].push_back(word);
}

Json check_json(const Check& check) {
  Json out = Json::object();
  add_program(out, check.program);
  out["attempts"] = check.attempts;
  out["again"] = check.again == Again::kFeedback ? "feedback" : "restart";
  if (check.temperature) out["temperature"] = *check.temperature;
  return out;
}

}  // namespace

std::string_view tool_name(Tool tool) {
  return std::ranges::find(kTools, tool, &std::pair<Tool, std::string_view>::first)->second;
}

std::optional<Tool> tool_of_name(std::string_view name) {
  const auto* found = std::ranges::find(kTools, name, &std::pair<Tool, std::string_view>::second);
  return found == std::end(kTools) ? std::nullopt : std::optional(found->first);
}

Json AgentSpec::to_json() const {
  Json out = Json::object({{"kind", "agent"}, {"name", name}, {"model", model_json(model)}});
  if (!instructions.empty()) out["instructions"] = instructions;
  out["prompt"] = prompt;
  out["tools"] = Json::array();
  for (const Tool tool : tools) out["tools"].push_back(tool_name(tool));
  out["budget"] = Json::object({{"steps", budget.steps},
                                {"tokens", budget.tokens},
                                {"time", workload::format_duration_ms(budget.time_ms)}});
  if (budget.micro_dollars > 0) out["budget"]["dollars"] = dollars(budget.micro_dollars);
  out["sandbox"] = sandbox_json(sandbox);
  if (check) out["check"] = check_json(*check);
  if (score) {
    Json& scored = out["score"] = Json::object();
    add_program(scored, score->program);
    scored["pass"] = score->pass;
  }
  if (!task.empty()) {
    Json& values = out["task"] = Json::object();
    for (const auto& [key, value] : task) values[key] = value;
  }
  return out;
}

std::string AgentSpec::hash() const { return sha256_hex(to_json().dump()); }

AgentSpec AgentsSpec::episode(std::size_t task, std::int64_t episode) const {
  AgentSpec out = agent;
  out.task = tasks.at(task);
  out.model.seed += episode;
  out.prompt = fill_in(out.prompt, out.task);
  out.instructions = fill_in(out.instructions, out.task);
  for (InsideFile& file : out.sandbox.files) file.content = fill_in(file.content, out.task);
  return out;
}

std::string fill_in(std::string_view text, const Pairs& values, std::string* missing) {
  std::string out;
  for (;;) {
    const std::size_t open = text.find("{{");
    const std::size_t close = open == std::string_view::npos ? open : text.find("}}", open);
    if (close == std::string_view::npos) break;
    const std::string_view name = trim(text.substr(open + 2, close - open - 2));
    const auto found = std::ranges::find(values, name, &std::pair<std::string, std::string>::first);
    out += text.substr(0, open);
    if (found != values.end()) {
      out += found->second;
    } else {
      if (missing != nullptr && missing->empty()) *missing = name;
      out += text.substr(open, close + 2 - open);
    }
    text.remove_prefix(close + 2);
  }
  return out + std::string(text);
}

}  // namespace capstan::agents::loop

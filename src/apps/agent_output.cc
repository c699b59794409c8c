// Text is indented behind the step's number and kind; colours only on a terminal.
#include "apps/agent_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "base/text.h"

namespace capstan::apps {
namespace {

using namespace agents::loop;

constexpr std::string_view kIndent = "               ";  // as wide as " 12 python      "
constexpr std::size_t kShownLinesMax = 24;
constexpr std::size_t kAnswerShownMax = 48;

std::string styled(bool terminal, std::string_view style, std::string_view text) {
  return terminal ? fmt::format("\033[{}m{}\033[0m", style, text) : std::string(text);
}

std::string duration(std::int64_t ms) {
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 60'000) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000);
  return fmt::format("{} min {} s", ms / 60'000, ms / 1000 % 60);
}

// Every line behind the first indented; at most kShownLinesMax.
std::string block(std::string_view text) {
  std::string out;
  std::size_t shown = 0;
  const auto lines = split(text, '\n');
  for (const std::string_view line : lines) {
    if (shown == kShownLinesMax && lines.size() > kShownLinesMax + 1) {
      return out + fmt::format("\n{}… {} more lines", kIndent, lines.size() - shown);
    }
    if (shown++ > 0) out += fmt::format("\n{}", kIndent);
    out += line;
  }
  return out;
}

// What a person wants to see of a call: the code, the command, the path.
std::string words_of(const ToolCall& call) {
  const auto arguments = Json::parse(call.arguments);
  if (!arguments) return call.arguments;
  for (const char* key : {"code", "command", "path"}) {
    if (const auto text = arguments->get_string(key)) return *text;
  }
  return call.arguments;
}

std::string cost_words(const Tokens& tokens, std::int64_t pico_dollars) {
  std::string out = fmt::format("{} + {} tokens", tokens.input, tokens.output);
  if (tokens.cached > 0) out += fmt::format(" ({} cached)", tokens.cached);
  if (pico_dollars > 0) out += ", " + format_dollars(pico_dollars);
  return out;
}

std::string counted(std::int64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::string reason_words(const std::string& reason) {
  if (reason == "done") return "done";
  if (reason == "check") return "no attempt passed the check";
  if (reason == "length") return "the last turn reached max_tokens";
  if (reason == "context") return "the conversation is longer than the model's context";
  return fmt::format("the budget of {} is used up", reason);
}

std::string one_line(std::string_view text) {
  std::string out(text.substr(0, kAnswerShownMax));
  for (char& c : out) {
    if (c == '\n') c = ' ';
  }
  return text.size() > kAnswerShownMax ? out + "…" : out;
}

}  // namespace

AgentOutput::AgentOutput(Form form)
    : form_(form), terminal_(form == Form::kText && ::isatty(STDOUT_FILENO) == 1) {}

void AgentOutput::begin(const AgentSpec& spec, std::string_view server) {
  if (form_ == Form::kJson) return;
  std::string tools;
  for (const Tool tool : spec.tools) tools += (tools.empty() ? "" : ", ") + std::string(tool_name(tool));
  fmt::print("{}  {} at {}; {}\n", styled(terminal_, "1", spec.name), spec.model.name, server,
             tools.empty() ? "no tools" : tools);
  fmt::print(" {:2} {:<11}{}\n", "", "prompt", block(spec.prompt));
  std::fflush(stdout);
}

void AgentOutput::model_head() {
  fmt::print(" {:2} {}", steps_ + 1, styled(terminal_, "36", fmt::format("{:<11}", "model")));
  in_model_ = true;
  in_reasoning_ = false;
}

void AgentOutput::piece(std::string_view text, bool reasoning) {
  if (!terminal_) return;
  if (!in_model_) {
    model_head();
  } else if (in_reasoning_ && !reasoning) {
    fmt::print("\n{}", kIndent);
  }
  in_reasoning_ = reasoning;
  std::string shown;
  for (const char c : text) {
    shown += c;
    if (c == '\n') shown += kIndent;
  }
  fmt::print("{}", styled(true, reasoning ? "2" : "0", shown));
  std::fflush(stdout);
}

void AgentOutput::step(const Step& step) {
  if (form_ == Form::kJson) {
    fmt::print("{}\n", step.to_json().dump());
    std::fflush(stdout);
    return;
  }
  if (step.kind == StepKind::kModel) {
    if (!in_model_) {
      model_head();
      const ModelReply& reply = step.reply;
      if (!reply.reasoning.empty()) fmt::print("{}", styled(terminal_, "2", block(reply.reasoning)));
      if (!reply.reasoning.empty() && !reply.content.empty()) fmt::print("\n{}", kIndent);
      if (!reply.content.empty()) fmt::print("{}", block(reply.content));
    }
    const bool shown = !step.reply.content.empty() || !step.reply.reasoning.empty();
    fmt::print(
        "{}{}\n", shown ? fmt::format("\n{}", kIndent) : "",
        styled(
            terminal_, "2",
            fmt::format("{}, {}{}", duration(step.took_ms), cost_words(step.reply.tokens, step.pico_dollars),
                        step.reply.calls.empty()
                            ? ""
                            : ", " + counted(static_cast<std::int64_t>(step.reply.calls.size()), "call"))));
    in_model_ = false;
  } else {
    const bool tool = step.kind == StepKind::kTool;
    const std::string name = tool ? step.call.name : std::string(step_kind_name(step.kind));
    fmt::print(" {:2} {}", step.number, styled(terminal_, tool ? "33" : "35", fmt::format("{:<11}", name)));
    if (tool) fmt::print("{}\n{}", block(words_of(step.call)), kIndent);
    if (!step.outcome.output.empty())
      fmt::print("{}\n{}", styled(terminal_, tool ? "0" : "2", block(step.outcome.output)), kIndent);
    std::string verdict;
    if (step.kind == StepKind::kCheck) verdict = step.outcome.good() ? "passed, " : "failed, ";
    if (!step.outcome.good() && step.kind != StepKind::kCheck) verdict = step.outcome.ended + ", ";
    fmt::print("{}\n", styled(terminal_, "2",
                              fmt::format("{}{}, {:.1f} ms of CPU", verdict, duration(step.took_ms),
                                          static_cast<double>(step.outcome.cpu_us) / 1000)));
  }
  steps_ = step.number;
  std::fflush(stdout);
}

void AgentOutput::end(const End& end, const std::string& recording) {
  if (form_ == Form::kJson) {
    Json json = end.to_json();
    json["recording"] = recording;
    fmt::print("{}\n", json.dump());
    return;
  }
  fmt::print("{}  {}{}; {}, {}, {}, {}, sandbox {:.0f} ms of CPU\n",
             styled(terminal_, end.passed ? "32" : "31", end.passed ? "passed" : "not passed"),
             end.score ? fmt::format("score {:g}; ", *end.score) : "", reason_words(end.reason),
             counted(end.steps, "step"), counted(end.attempts, "attempt"),
             cost_words(end.tokens, end.pico_dollars), duration(end.took_ms),
             static_cast<double>(end.cpu_us) / 1000);
  fmt::print("answer  {}\n", block(end.answer));
  if (!recording.empty()) fmt::print("recorded in {}; capstan agent replay {}\n", recording, recording);
}

void AgentOutput::begin_array(const AgentsSpec& spec, std::string_view server, std::int64_t wanted) {
  wanted_ = wanted;
  if (form_ == Form::kJson) return;
  fmt::print("{}  {} at {}; {}, {} each, {} at a time\n", styled(terminal_, "1", spec.agent.name),
             spec.agent.model.name, server, counted(static_cast<std::int64_t>(spec.tasks.size()), "task"),
             counted(spec.episodes, "episode"), spec.concurrency);
  std::fflush(stdout);
}

void AgentOutput::clear_line() {
  if (terminal_) fmt::print("\r\033[K");
}

void AgentOutput::counting_line() {
  if (!terminal_) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  fmt::print("\r\033[K{} of {} ended, {} passed, {} running, {:.0f} tokens/s", ended_, wanted_, passed_,
             running_, static_cast<double>(tokens_) / std::max(seconds, 0.001));
  std::fflush(stdout);
}

void AgentOutput::episode_began() {
  ++running_;
  counting_line();
}

void AgentOutput::episode(const EpisodeResult& result, const Pairs& task) {
  const End& end = result.end;
  ++ended_;
  --running_;
  passed_ += end.passed;
  tokens_ += end.tokens.total();
  if (form_ == Form::kJson) {
    Json json = end.to_json();
    json["task"] = result.key.task;
    json["episode"] = result.key.episode;
    json["recording"] = result.recording.string();
    fmt::print("{}\n", json.dump());
    std::fflush(stdout);
    return;
  }
  clear_line();
  const std::string asked = task.empty() ? "" : one_line(task.front().second);
  fmt::print("{} {:5}-{:<4} {:>6}  {:2} steps {:6} tokens {:>8}  {} {}\n",
             styled(terminal_, end.passed ? "32" : "31", end.passed ? "pass" : "FAIL"), result.key.task,
             result.key.episode, end.score ? fmt::format("{:g}", *end.score) : "-", end.steps,
             end.tokens.total(), duration(end.took_ms), asked,
             styled(terminal_, "2",
                    fmt::format("→ {}{}", one_line(end.answer),
                                end.reason == "done" ? "" : " (" + reason_words(end.reason) + ")")));
  counting_line();
  std::fflush(stdout);
}

void AgentOutput::summary(const Summary& summary, const std::string& output) {
  if (form_ == Form::kJson) {
    Json json = summary.to_json();
    json["kind"] = "summary";
    fmt::print("{}\n", json.dump());
    return;
  }
  clear_line();
  fmt::print("\n{} of {} episodes ended", summary.episodes, summary.wanted);
  if (summary.earlier > 0) fmt::print(", {} of them in an earlier run", summary.earlier);
  if (summary.failed > 0) fmt::print(", {} could not be run: {}", summary.failed, summary.failure);
  fmt::print("\n");
  if (summary.scored > 0)
    fmt::print("{}\n", styled(terminal_, "1", fmt::format("mean score {:.4f}", summary.mean_score)));
  for (const auto& [k, share] : summary.pass_at) fmt::print("pass@{} {:.4f}  ", k, share);
  fmt::print("\n");
  for (const auto& [reason, count] : summary.reasons)
    fmt::print("{} ended: {}\n", count, reason_words(reason));
  fmt::print("{}, {} steps, {} attempts, sandboxes {:.1f} s of CPU, {}\n",
             cost_words(summary.tokens, summary.pico_dollars), summary.steps, summary.attempts,
             static_cast<double>(summary.cpu_us) / 1e6, duration(summary.wall_ms));
  fmt::print("recordings and summary.json in {}\n", output);
}

void AgentOutput::replayed(const ReplayReport& report, const std::string& file) {
  if (form_ == Form::kJson) {
    Json json = Json::object({{"recording", file}, {"steps", report.steps}, {"same", report.same()}});
    json["differences"] = Json::array();
    for (const Difference& each : report.differences) {
      json["differences"].push_back(Json::object(
          {{"step", each.step}, {"what", each.what}, {"recorded", each.recorded}, {"now", each.now}}));
    }
    fmt::print("{}\n", json.dump());
    return;
  }
  for (const Difference& each : report.differences) {
    const std::string place = each.step == 0 ? "the end" : fmt::format("step {}", each.step);
    fmt::print("{} differs in '{}'\n  recorded: {}\n  now:      {}\n", place, each.what, each.recorded,
               each.now);
  }
  fmt::print("{}: {} steps, {}\n", file, report.steps,
             report.same()
                 ? styled(terminal_, "32", "the same")
                 : styled(terminal_, "31", fmt::format("{} differences", report.differences.size())));
}

}  // namespace capstan::apps

// How: an attempt is a conversation that ends in an answer; a check that fails starts another attempt, in the
// same conversation or in a new one. Budgets are looked at before each step, the score is given whatever they
// say.
#include "agents/loop/episode.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/sha256.h"
#include "base/text.h"

namespace capstan::agents::loop {
namespace {

constexpr std::int64_t kSeedsPerAttempt =
    1'000'000'007;                              // attempts of one episode and other episodes do not meet
constexpr std::int64_t kScoreTimeMs = 600'000;  // the scorer's own limit is that of a call

Json facts_of(const AgentSpec& spec, const ModelReply& reply, const Json& calls, std::int64_t attempt) {
  Json task = Json::object();
  for (const auto& [key, value] : spec.task) task[key] = value;
  return Json::object({{"prompt", spec.prompt},
                       {"answer", reply.content},
                       {"reasoning", reply.reasoning},
                       {"calls", calls},
                       {"task", std::move(task)},
                       {"attempt", attempt}});
}

class Episode {
 public:
  Episode(const AgentSpec& spec, World& world, const std::function<void(const Step&)>& on_step)
      : spec_(spec), world_(world), on_step_(on_step), conversation_(spec.instructions, spec.prompt) {}

  Result<End> run() {
    CAPSTAN_TRY(end_.reason, attempts());
    end_.answer = last_.content;
    end_.passed = end_.reason == "done";
    if (spec_.score) CAPSTAN_CHECK(score());
    end_.took_ms = world_.now_ms();
    const sandbox::Usage usage = world_.usage();
    end_.cpu_us = usage.cpu_us;
    end_.memory_peak_bytes = usage.memory_peak_bytes;
    return std::move(end_);
  }

 private:
  // Each returns the reason to end; attempts() always, the others "" to go on.
  Result<std::string> attempts() {
    for (;; ++end_.attempts) {
      CAPSTAN_TRY(const std::string ended, converse());
      if (ended == "context") return ended;
      if (!ended.empty() && ended != "length") return ended;
      if (!spec_.check) return ended.empty() ? "done" : ended;
      if (std::string used = used_up(); !used.empty()) return used;
      CAPSTAN_TRY(const Outcome verdict, check());
      if (verdict.good()) return "done";
      if (end_.attempts >= spec_.check->attempts) return "check";
      if (spec_.check->again == Again::kRestart) {
        conversation_ = Conversation(spec_.instructions, spec_.prompt);
        calls_ = Json::array();
        CAPSTAN_CHECK(world_.restart());
      } else {
        conversation_.add_user("A check of your answer failed:\n" + verdict.output + "\nPlease correct it.");
      }
    }
  }

  // Turns until an answer without calls.
  Result<std::string> converse() {
    for (;;) {
      if (std::string used = used_up(); !used.empty()) return used;
      CAPSTAN_CHECK(turn());
      if (last_.finish == "context" || last_.finish == "length") return last_.finish;
      if (last_.calls.empty()) return "";
      for (const ToolCall& call : last_.calls) {
        if (std::string used = used_up(); !used.empty()) return used;
        CAPSTAN_CHECK(use(call));
      }
    }
  }

  Result<void> turn() {
    Step step = begin(StepKind::kModel);
    const Sampling sampling{
        .seed = spec_.model.seed + (end_.attempts - 1) * kSeedsPerAttempt,
        .temperature = temperature(),
        .max_tokens = std::min(spec_.model.max_tokens, spec_.budget.tokens - end_.tokens.total())};
    const Json body = request_body(spec_.model, spec_.tools, conversation_, sampling);
    step.request = sha256_hex(body.dump());
    auto reply = world_.ask(body, time_left());
    if (!reply && reply.error().code == Code::kTimeout) {
      reply = ModelReply{.finish = "time"};
    }
    if (!reply) return std::unexpected(reply.error());
    step.reply = *std::move(reply);
    name_calls(step.reply);
    const Tokens& tokens = step.reply.tokens;
    if (spec_.model.price) {
      step.pico_dollars = (tokens.input - tokens.cached) * spec_.model.price->input +
                          tokens.cached * spec_.model.price->cached +
                          tokens.output * spec_.model.price->output;
    }
    end_.tokens += tokens;
    end_.pico_dollars += step.pico_dollars;
    last_ = step.reply;
    conversation_.add(step.reply);
    finish(std::move(step));
    return {};
  }

  std::optional<double> temperature() const {
    if (end_.attempts > 1 && spec_.check->temperature) return spec_.check->temperature;
    return spec_.model.temperature;
  }

  // Ids of ours in place of the server's random ones.
  void name_calls(ModelReply& reply) {
    for (ToolCall& call : reply.calls) {
      const std::string id = fmt::format("call{:05d}", ++calls_named_);
      if (reply.items.is_array()) {
        for (Json& item : reply.items.items()) {
          if (item.get_string("call_id") == call.id) item["call_id"] = id;
        }
      }
      call.id = id;
    }
  }

  Result<void> use(const ToolCall& call) {
    Step step = begin(StepKind::kTool);
    step.call = call;
    CAPSTAN_TRY(step.outcome, offered(call) ? world_.call(call, time_left()) : unknown(call));
    Json fact =
        Json::object({{"name", call.name}, {"output", step.outcome.output}, {"good", step.outcome.good()}});
    const auto arguments = Json::parse(call.arguments);
    fact["arguments"] = arguments ? *arguments : Json(call.arguments);
    calls_.push_back(std::move(fact));
    conversation_.add_result(call, step.outcome.output);
    finish(std::move(step));
    return {};
  }

  bool offered(const ToolCall& call) const {
    const auto tool = tool_of_name(call.name);
    return tool && std::ranges::find(spec_.tools, *tool) != spec_.tools.end();
  }

  Result<Outcome> unknown(const ToolCall& call) const {
    std::string names;
    for (const Tool tool : spec_.tools) names += (names.empty() ? "" : ", ") + std::string(tool_name(tool));
    return Outcome{.output = fmt::format("there is no tool '{}'; there are: {}", call.name,
                                         names.empty() ? "none" : names),
                   .ended = "refused",
                   .exit_code = 1};
  }

  Result<Outcome> check() {
    Step step = begin(StepKind::kCheck);
    const Json facts = facts_of(spec_, last_, calls_, end_.attempts);
    CAPSTAN_TRY(step.outcome, world_.judge(StepKind::kCheck, spec_.check->program, facts, time_left()));
    Outcome outcome = step.outcome;
    finish(std::move(step));
    return outcome;
  }

  Result<void> score() {
    Step step = begin(StepKind::kScore);
    const Json facts = facts_of(spec_, last_, calls_, end_.attempts);
    CAPSTAN_TRY(step.outcome, world_.judge(StepKind::kScore, spec_.score->program, facts, kScoreTimeMs));
    step.score = end_.score = parse_score(step.outcome);
    end_.passed = end_.score && *end_.score >= spec_.score->pass;
    finish(std::move(step));
    return {};
  }

  std::string used_up() const {
    if (end_.steps >= spec_.budget.steps) return "steps";
    if (end_.tokens.total() >= spec_.budget.tokens) return "tokens";
    if (time_left() <= 0 || last_.finish == "time") return "time";
    if (spec_.budget.micro_dollars > 0 && end_.pico_dollars >= spec_.budget.micro_dollars * 1'000'000)
      return "dollars";
    return "";
  }

  std::int64_t time_left() const { return spec_.budget.time_ms - world_.now_ms(); }

  Step begin(StepKind kind) {
    began_ms_ = world_.now_ms();
    return {.kind = kind, .number = ++end_.steps, .attempt = end_.attempts};
  }

  void finish(Step step) {
    step.at_ms = world_.now_ms();
    step.took_ms = step.at_ms - began_ms_;
    on_step_(step);
  }

  const AgentSpec& spec_;
  World& world_;
  const std::function<void(const Step&)>& on_step_;
  Conversation conversation_;
  ModelReply last_;
  Json calls_ = Json::array();  // of this attempt, for check and scorer
  std::int64_t calls_named_ = 0;
  std::int64_t began_ms_ = 0;
  End end_;
};

}  // namespace

std::optional<double> parse_score(const Outcome& outcome) {
  if (!outcome.good()) return std::nullopt;
  std::string_view last;
  for (const std::string_view line : split(outcome.output, '\n')) {
    if (!trim(line).empty()) last = trim(line);
  }
  double value = 0;
  const auto [end, error] = std::from_chars(last.data(), last.data() + last.size(), value);
  if (error != std::errc() || end != last.data() + last.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

Result<End> run_episode(const AgentSpec& spec, World& world,
                        const std::function<void(const Step&)>& on_step) {
  return Episode(spec, world, on_step).run();
}

}  // namespace capstan::agents::loop

// JSON both ways; `comparable` is the same JSON without what differs from run to run.
#include "agents/loop/step.h"

#include <array>

namespace capstan::agents::loop {
namespace {

constexpr std::array<std::string_view, 4> kKinds = {"model", "tool", "check", "score"};

Json tokens_json(const Tokens& tokens) {
  return Json::object({{"input", tokens.input},
                       {"cached", tokens.cached},
                       {"output", tokens.output},
                       {"reasoning", tokens.reasoning}});
}

Tokens tokens_of(const Json& parent) {
  const Json* json = parent.find("tokens");
  if (json == nullptr) return {};
  return {json->get_int("input").value_or(0), json->get_int("cached").value_or(0),
          json->get_int("output").value_or(0), json->get_int("reasoning").value_or(0)};
}

Json call_json(const ToolCall& call) {
  return Json::object({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
}

ToolCall call_of(const Json& json) {
  return {json.get_string("id").value_or(""), json.get_string("name").value_or(""),
          json.get_string("arguments").value_or("")};
}

void add_reply(Json& out, const Step& step) {
  const ModelReply& reply = step.reply;
  out["request"] = step.request;
  if (!reply.reasoning.empty()) out["reasoning"] = reply.reasoning;
  out["content"] = reply.content;
  for (const ToolCall& call : reply.calls) out["calls"].push_back(call_json(call));
  if (!reply.items.is_null()) out["items"] = reply.items;
  out["finish"] = reply.finish;
  out["tokens"] = tokens_json(reply.tokens);
  out["pico_dollars"] = step.pico_dollars;
}

void add_outcome(Json& out, const Outcome& outcome) {
  out["output"] = outcome.output;
  out["ended"] = outcome.ended;
  out["exit_code"] = outcome.exit_code;
  if (outcome.truncated) out["truncated"] = true;
  out["cpu_us"] = outcome.cpu_us;
  out["memory_peak_bytes"] = outcome.memory_peak_bytes;
}

Json score_json(const std::optional<double>& score) { return score ? Json(*score) : Json(); }

}  // namespace

Tokens& Tokens::operator+=(const Tokens& other) {
  input += other.input;
  cached += other.cached;
  output += other.output;
  reasoning += other.reasoning;
  return *this;
}

std::string_view step_kind_name(StepKind kind) { return kKinds[static_cast<std::size_t>(kind)]; }

Json Step::to_json() const {
  Json out = Json::object({{"step", number}, {"kind", step_kind_name(kind)}, {"attempt", attempt}});
  if (kind == StepKind::kModel) add_reply(out, *this);
  if (kind == StepKind::kTool) out["call"] = call_json(call);
  if (kind != StepKind::kModel) add_outcome(out, outcome);
  if (kind == StepKind::kScore) out["score"] = score_json(score);
  out["took_ms"] = took_ms;
  out["at_ms"] = at_ms;
  return out;
}

Json Step::comparable() const {
  Json out = to_json();
  for (const char* key : {"took_ms", "at_ms", "cpu_us", "memory_peak_bytes", "items"}) out.erase(key);
  // A prompt that a server has in its cache is the same prompt.
  if (Json* tokens = out.find("tokens"); tokens != nullptr) tokens->erase("cached");
  out.erase("pico_dollars");
  return out;
}

Result<Step> Step::from_json(const Json& json) {
  Step out;
  const std::string kind = json.get_string("kind").value_or("");
  std::size_t index = 0;
  while (index < kKinds.size() && kKinds[index] != kind) ++index;
  if (index == kKinds.size()) return fail(Code::kCorrupt, "'{}' is no kind of step", kind);
  out.kind = static_cast<StepKind>(index);
  out.number = json.get_int("step").value_or(0);
  out.attempt = json.get_int("attempt").value_or(1);
  out.took_ms = json.get_int("took_ms").value_or(0);
  out.at_ms = json.get_int("at_ms").value_or(0);
  out.request = json.get_string("request").value_or("");
  out.reply = {.content = json.get_string("content").value_or(""),
               .reasoning = json.get_string("reasoning").value_or(""),
               .finish = json.get_string("finish").value_or(""),
               .tokens = tokens_of(json)};
  if (const Json* calls = json.find("calls"); calls != nullptr && calls->is_array()) {
    for (const Json& call : calls->items()) out.reply.calls.push_back(call_of(call));
  }
  if (const Json* items = json.find("items"); items != nullptr) out.reply.items = *items;
  out.pico_dollars = json.get_int("pico_dollars").value_or(0);
  if (const Json* call = json.find("call"); call != nullptr) out.call = call_of(*call);
  out.outcome = {.output = json.get_string("output").value_or(""),
                 .ended = json.get_string("ended").value_or(""),
                 .exit_code = static_cast<int>(json.get_int("exit_code").value_or(0)),
                 .truncated = json.get_bool("truncated").value_or(false),
                 .cpu_us = json.get_int("cpu_us").value_or(0),
                 .memory_peak_bytes = json.get_int("memory_peak_bytes").value_or(0)};
  out.score = json.get_double("score");
  return out;
}

Json End::to_json() const {
  return Json::object({{"kind", "end"},
                       {"reason", reason},
                       {"answer", answer},
                       {"score", score_json(score)},
                       {"passed", passed},
                       {"attempts", attempts},
                       {"steps", steps},
                       {"tokens", tokens_json(tokens)},
                       {"pico_dollars", pico_dollars},
                       {"took_ms", took_ms},
                       {"cpu_us", cpu_us},
                       {"memory_peak_bytes", memory_peak_bytes}});
}

Json End::comparable() const {
  Json out = to_json();
  for (const char* key : {"took_ms", "cpu_us", "memory_peak_bytes", "pico_dollars"}) out.erase(key);
  out["tokens"].erase("cached");
  return out;
}

Result<End> End::from_json(const Json& json) {
  if (json.get_string("kind") != "end") return fail(Code::kCorrupt, "the last line is not the episode's end");
  return End{.reason = json.get_string("reason").value_or(""),
             .answer = json.get_string("answer").value_or(""),
             .score = json.get_double("score"),
             .passed = json.get_bool("passed").value_or(false),
             .attempts = json.get_int("attempts").value_or(1),
             .steps = json.get_int("steps").value_or(0),
             .tokens = tokens_of(json),
             .pico_dollars = json.get_int("pico_dollars").value_or(0),
             .took_ms = json.get_int("took_ms").value_or(0),
             .cpu_us = json.get_int("cpu_us").value_or(0),
             .memory_peak_bytes = json.get_int("memory_peak_bytes").value_or(0)};
}

std::string format_dollars(std::int64_t pico_dollars) {
  const std::int64_t micro = (pico_dollars + 500'000) / 1'000'000;
  if (micro == 0 && pico_dollars > 0) return fmt::format("${:.9f}", static_cast<double>(pico_dollars) / 1e12);
  return fmt::format("${}.{:06d}", micro / 1'000'000, micro % 1'000'000);
}

}  // namespace capstan::agents::loop

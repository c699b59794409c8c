// How: one item is open at a time. A piece of another kind closes it and opens the next; what is inside grows
// in text_.
#include "gateway/openai/responses_answer.h"

#include <algorithm>

namespace capstan::gateway::openai {

ResponsesAnswer::ResponsesAnswer(const ResponsesCall& call, ResponsesContext context)
    : call_(call), context_(std::move(context)) {}

void ResponsesAnswer::emit(std::string type, Json fields, Events& events) {
  Json event = Json::object({{"type", std::move(type)}, {"sequence_number", sequence_++}});
  for (auto& [key, value] : fields.members()) event[key] = std::move(value);
  events.push_back(std::move(event));
}

Json ResponsesAnswer::place() const {
  return Json::object({{"item_id", *output_.back().get_string("id")}, {"output_index", output_.size() - 1}});
}

ResponsesAnswer::Events ResponsesAnswer::begin() {
  Events events;
  emit("response.created", Json::object({{"response", response()}}), events);
  emit("response.in_progress", Json::object({{"response", response()}}), events);
  return events;
}

Json ResponsesAnswer::part(const std::string& text) const {
  if (kind_ == Kind::kReasoning) return Json::object({{"type", "reasoning_text"}, {"text", text}});
  if (kind_ == Kind::kRefusal) return Json::object({{"type", "refusal"}, {"refusal", text}});
  return Json::object(
      {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", logprobs_}});
}

void ResponsesAnswer::emit_part(std::string_view what, Events& events) {
  Json fields = place();
  fields["content_index"] = 0;
  fields["part"] = part(text_);
  emit(fmt::format("response.content_part.{}", what), std::move(fields), events);
}

void ResponsesAnswer::open(Kind kind, const CallDelta* call, Events& events) {
  close(events, true);
  kind_ = kind;
  text_.clear();
  logprobs_.clear();
  Json item = Json::object();
  if (kind == Kind::kReasoning) {
    item = Json::object({{"id", "rs_" + context_.new_id()},
                         {"type", "reasoning"},
                         {"summary", Json::array()},
                         {"content", Json::array()}});
    if (call_.encrypted_reasoning) item["encrypted_content"] = nullptr;
    item["status"] = "in_progress";
  } else if (call != nullptr) {
    call_index_ = call->index;
    const bool custom = kind == Kind::kCustomCall;
    item = Json::object({{"id", (custom ? "ctc_" : "fc_") + context_.new_id()},
                         {"type", custom ? "custom_tool_call" : "function_call"},
                         {"status", "in_progress"},
                         {"call_id", call->id.empty() ? "call_" + context_.new_id() : call->id},
                         {"name", call->name},
                         {custom ? "input" : "arguments", ""}});
  } else {
    item = Json::object({{"id", "msg_" + context_.new_id()},
                         {"type", "message"},
                         {"status", "in_progress"},
                         {"role", "assistant"},
                         {"content", Json::array()}});
  }
  output_.push_back(item);
  emit("response.output_item.added",
       Json::object({{"output_index", output_.size() - 1}, {"item", std::move(item)}}), events);
  if (call == nullptr) emit_part("added", events);
}

std::string_view ResponsesAnswer::delta_type() const {
  switch (kind_) {
    case Kind::kReasoning:
      return "response.reasoning_text";
    case Kind::kRefusal:
      return "response.refusal";
    case Kind::kCall:
      return "response.function_call_arguments";
    case Kind::kCustomCall:
      return "response.custom_tool_call_input";
    default:
      return "response.output_text";
  }
}

void ResponsesAnswer::append(const std::string& text, const Json::Array& logprobs, Events& events) {
  text_ += text;
  logprobs_.insert(logprobs_.end(), logprobs.begin(), logprobs.end());
  // A custom tool's input is told when it is whole: its pieces are pieces of JSON.
  if (text.empty() || kind_ == Kind::kCustomCall) return;
  Json fields = place();
  if (kind_ != Kind::kCall) fields["content_index"] = 0;
  fields["delta"] = text;
  if (kind_ == Kind::kText) fields["logprobs"] = logprobs;
  emit(fmt::format("{}.delta", delta_type()), std::move(fields), events);
}

void ResponsesAnswer::close_call(Json& item, Events& events) {
  const bool custom = kind_ == Kind::kCustomCall;
  std::string value = text_;
  if (custom) {
    const auto json = Json::parse(text_);
    if (json) value = json->get_string("input").value_or(text_);
    Json fields = place();
    fields["delta"] = value;
    emit(fmt::format("{}.delta", delta_type()), std::move(fields), events);
  }
  item[custom ? "input" : "arguments"] = value;
  Json fields = place();
  fields[custom ? "input" : "arguments"] = std::move(value);
  if (!custom) fields["name"] = *item.get_string("name");
  emit(fmt::format("{}.done", delta_type()), std::move(fields), events);
}

void ResponsesAnswer::finish_item(Json& item, bool complete) const {
  item["status"] = complete ? "completed" : "incomplete";
  if (kind_ == Kind::kReasoning && call_.encrypted_reasoning)
    item["encrypted_content"] = context_.close(text_);
}

void ResponsesAnswer::close(Events& events, bool complete) {
  if (kind_ == Kind::kNone) return;
  Json& item = output_.back();
  if (kind_ == Kind::kCall || kind_ == Kind::kCustomCall) {
    close_call(item, events);
  } else {
    Json fields = place();
    fields["content_index"] = 0;
    fields[kind_ == Kind::kRefusal ? "refusal" : "text"] = text_;
    if (kind_ == Kind::kText) fields["logprobs"] = logprobs_;
    emit(fmt::format("{}.done", delta_type()), std::move(fields), events);
    emit_part("done", events);
    item["content"].push_back(part(text_));
  }
  finish_item(item, complete);
  emit("response.output_item.done", Json::object({{"output_index", output_.size() - 1}, {"item", item}}),
       events);
  kind_ = Kind::kNone;
}

ResponsesAnswer::Events ResponsesAnswer::push(const ChatDelta& delta) {
  Events events;
  const auto say = [&](Kind kind, const std::string& text, const Json::Array& logprobs) {
    if (text.empty()) return;
    if (kind_ != kind) open(kind, nullptr, events);
    append(text, logprobs, events);
  };
  say(Kind::kReasoning, delta.reasoning, {});
  say(Kind::kText, delta.content, call_.logprobs ? delta.logprobs : Json::Array());
  say(Kind::kRefusal, delta.refusal, {});
  for (const CallDelta& call : delta.calls) {
    const bool in_call = kind_ == Kind::kCall || kind_ == Kind::kCustomCall;
    if (!in_call || call_index_ != call.index) {
      const bool custom = std::ranges::find(call_.custom_tools, call.name) != call_.custom_tools.end();
      open(custom ? Kind::kCustomCall : Kind::kCall, &call, events);
    }
    append(call.arguments, {}, events);
  }
  if (!delta.finish_reason.empty()) finish_reason_ = delta.finish_reason;
  if (!delta.service_tier.empty()) service_tier_ = delta.service_tier;
  if (!delta.usage.is_null()) usage_ = delta.usage;
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::finish() {
  Events events;
  const bool complete = finish_reason_ != "length" && finish_reason_ != "content_filter";
  close(events, complete);
  status_ = complete ? "completed" : "incomplete";
  emit("response." + status_, Json::object({{"response", response()}}), events);
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::fail(const OpenAiError& error) {
  Events events;
  kind_ = Kind::kNone;
  if (!output_.empty() && output_.back().get_string("status") == "in_progress")
    output_.back()["status"] = "incomplete";
  status_ = "failed";
  const bool limited = error.status == 429;
  error_ = Json::object({{"code", limited              ? "rate_limit_exceeded"
                                  : error.status < 500 ? "invalid_prompt"
                                                       : "server_error"},
                         {"message", error.message}});
  emit("response.failed", Json::object({{"response", response()}}), events);
  return events;
}

void ResponsesAnswer::cancel() { status_ = "cancelled"; }

Json ResponsesAnswer::response() const {
  Json incomplete;
  if (status_ == "incomplete")
    incomplete["reason"] = finish_reason_ == "length" ? "max_output_tokens" : "content_filter";
  Json usage;
  if (!usage_.is_null()) {
    const ChatUsage told = read_usage(usage_);
    usage = Json::object({{"input_tokens", told.input},
                          {"input_tokens_details", Json::object({{"cached_tokens", told.cached}})},
                          {"output_tokens", told.output},
                          {"output_tokens_details", Json::object({{"reasoning_tokens", told.reasoning}})},
                          {"total_tokens", told.input + told.output}});
  }
  Json out = Json::object({{"id", context_.id},
                           {"object", "response"},
                           {"created_at", context_.created_at},
                           {"status", status_},
                           {"background", call_.background},
                           {"error", error_},
                           {"incomplete_details", std::move(incomplete)},
                           {"model", call_.model},
                           {"output", output_},
                           {"usage", std::move(usage)}});
  for (const auto& [key, value] : call_.echo.members()) out[key] = value;
  if (!service_tier_.empty()) out["service_tier"] = service_tier_;
  return out;
}

}  // namespace capstan::gateway::openai

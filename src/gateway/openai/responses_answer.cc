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

Json ResponsesAnswer::place_of(std::size_t item) const {
  return Json::object({{"item_id", *output_[item].get_string("id")}, {"output_index", item}});
}

ResponsesAnswer::Events ResponsesAnswer::queue() {
  Events events;
  Json queued = response();
  queued["status"] = "queued";
  emit("response.created", Json::object({{"response", queued}}), events);
  emit("response.queued", Json::object({{"response", queued}}), events);
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::begin() {
  Events events;
  if (sequence_ == 0) emit("response.created", Json::object({{"response", response()}}), events);
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

// The item as it begins.
Json ResponsesAnswer::opened(Kind kind, const CallDelta* call) {
  if (kind == Kind::kReasoning) {
    Json item = Json::object({{"id", "rs_" + context_.new_id()},
                              {"type", "reasoning"},
                              {"summary", Json::array()},
                              {"content", Json::array()}});
    if (call_.encrypted_reasoning) item["encrypted_content"] = nullptr;
    item["status"] = "in_progress";
    return item;
  }
  if (kind == Kind::kCode) {
    return Json::object({{"id", "ci_" + context_.new_id()},
                         {"type", "code_interpreter_call"},
                         {"status", "in_progress"},
                         {"code", ""},
                         {"container_id", call_.container},
                         {"outputs", nullptr}});
  }
  if (call != nullptr) {
    const bool custom = kind == Kind::kCustomCall;
    return Json::object({{"id", (custom ? "ctc_" : "fc_") + context_.new_id()},
                         {"type", custom ? "custom_tool_call" : "function_call"},
                         {"status", "in_progress"},
                         {"call_id", call->id.empty() ? "call_" + context_.new_id() : call->id},
                         {"name", call->name},
                         {custom ? "input" : "arguments", ""}});
  }
  return Json::object({{"id", "msg_" + context_.new_id()},
                       {"type", "message"},
                       {"status", "in_progress"},
                       {"role", "assistant"},
                       {"content", Json::array()}});
}

void ResponsesAnswer::open(Kind kind, const CallDelta* call, Events& events) {
  close(events, true);
  kind_ = kind;
  text_.clear();
  argument_ = TextMember(kind == Kind::kCode ? kCodeArgument : kInputArgument);
  told_.clear();
  logprobs_.clear();
  if (call != nullptr) call_index_ = call->index;
  Json item = opened(kind, call);
  output_.push_back(item);
  emit("response.output_item.added",
       Json::object({{"output_index", output_.size() - 1}, {"item", std::move(item)}}), events);
  if (kind == Kind::kCode) emit("response.code_interpreter_call.in_progress", place(), events);
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
    case Kind::kCode:
      return "response.code_interpreter_call_code";
    default:
      return "response.output_text";
  }
}

void ResponsesAnswer::append(const std::string& text, const Json::Array& logprobs, Events& events) {
  text_ += text;
  logprobs_.insert(logprobs_.end(), logprobs.begin(), logprobs.end());
  if (kind_ == Kind::kCode || kind_ == Kind::kCustomCall) return tell(argument_.next(text_), events);
  if (text.empty()) return;
  Json fields = place();
  if (kind_ != Kind::kCall) fields["content_index"] = 0;
  fields["delta"] = text;
  if (kind_ == Kind::kText) fields["logprobs"] = logprobs;
  emit(fmt::format("{}.delta", delta_type()), std::move(fields), events);
}

void ResponsesAnswer::close_call(Json& item, Events& events) {
  const bool custom = kind_ == Kind::kCustomCall;
  std::string value = custom ? whole_argument() : text_;
  if (custom && value.starts_with(told_)) tell(value.substr(told_.size()), events);
  const std::string_view name = custom ? kInputArgument : "arguments";
  item[name] = value;
  Json fields = place();
  fields[name] = std::move(value);
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
  if (kind_ == Kind::kCode) return close_code(item, events, complete);
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
  emit_done(output_.size() - 1, events);
  kind_ = Kind::kNone;
}

void ResponsesAnswer::tell(std::string more, Events& events) {
  if (more.empty()) return;
  told_ += more;
  Json fields = place();
  fields["delta"] = std::move(more);
  emit(fmt::format("{}.delta", delta_type()), std::move(fields), events);
}

// The code, or a custom tool's input; what is no JSON is taken for it as it is.
std::string ResponsesAnswer::whole_argument() const {
  const auto json = Json::parse(text_);
  const std::string_view name = kind_ == Kind::kCode ? kCodeArgument : kInputArgument;
  const auto written = json && json->is_object() ? json->get_string(name) : std::nullopt;
  return written.value_or(text_);
}

// The call is whole; what it does comes after the turn.
void ResponsesAnswer::close_code(Json& item, Events& events, bool complete) {
  std::string code = whole_argument();
  item["code"] = code;
  if (code.starts_with(told_)) tell(code.substr(told_.size()), events);
  Json fields = place();
  fields["code"] = code;
  emit(fmt::format("{}.done", delta_type()), std::move(fields), events);
  kind_ = Kind::kNone;
  if (complete) {
    codes_.push_back({output_.size() - 1, std::move(code)});
  } else {
    item["status"] = "incomplete";
    emit_done(output_.size() - 1, events);
  }
}

void ResponsesAnswer::emit_done(std::size_t item, Events& events) {
  emit("response.output_item.done", Json::object({{"output_index", item}, {"item", shown(output_[item])}}), events);
}

Json ResponsesAnswer::shown(Json item) const {
  if (!call_.code_outputs) hide_outputs(item);
  return item;
}

ResponsesAnswer::Events ResponsesAnswer::end_turn() {
  Events events;
  close(events, complete());
  usage_ = usage();
  turn_usage_ = {};
  if (!codes_.empty()) finish_reason_.clear();  // it goes on
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::code_begins(std::size_t item) {
  Events events;
  output_[item]["status"] = "interpreting";
  emit("response.code_interpreter_call.interpreting", place_of(item), events);
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::code_ran(std::size_t item, const std::string& logs, bool finished,
                                                  const std::vector<std::string>& images) {
  Events events;
  output_[item]["status"] = finished ? "completed" : "failed";
  Json outputs = Json::array();
  if (!logs.empty() || images.empty()) outputs.push_back(Json::object({{"type", "logs"}, {"logs", logs}}));
  for (const std::string& url : images) outputs.push_back(Json::object({{"type", "image"}, {"url", url}}));
  output_[item]["outputs"] = std::move(outputs);
  if (finished) emit("response.code_interpreter_call.completed", place_of(item), events);
  emit_done(item, events);
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::code_ignored(std::size_t item) {
  Events events;
  output_[item]["status"] = "incomplete";
  emit_done(item, events);
  return events;
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
    const bool in_call = kind_ == Kind::kCall || kind_ == Kind::kCustomCall || kind_ == Kind::kCode;
    if (!in_call || call_index_ != call.index) {
      const bool custom = std::ranges::find(call_.custom_tools, call.name) != call_.custom_tools.end();
      const bool code = call_.code && call.name == kCodeFunction;
      calls_client_ = calls_client_ || !code;
      open(code ? Kind::kCode : custom ? Kind::kCustomCall : Kind::kCall, &call, events);
    }
    append(call.arguments, {}, events);
  }
  if (!delta.finish_reason.empty()) finish_reason_ = delta.finish_reason;
  if (!delta.service_tier.empty()) service_tier_ = delta.service_tier;
  if (!delta.usage.is_null()) {
    turn_usage_ = read_usage(delta.usage);
    usage_known_ = true;
  }
  return events;
}

bool ResponsesAnswer::complete() const { return finish_reason_ != "length" && finish_reason_ != "content_filter"; }

ResponsesAnswer::Events ResponsesAnswer::finish() {
  if (!complete()) return stop(finish_reason_ == "length" ? "max_output_tokens" : "content_filter");
  Events events;
  close(events, true);
  status_ = "completed";
  completed_at_ = context_.now ? context_.now() : context_.created_at;
  emit("response.completed", Json::object({{"response", response()}}), events);
  return events;
}

ResponsesAnswer::Events ResponsesAnswer::stop(std::string reason) {
  Events events;
  close(events, false);
  for (std::size_t item = 0; item < output_.size(); ++item) {
    const auto status = output_[item].get_string("status");
    if (status != "in_progress" && status != "interpreting") continue;
    const auto ended = code_ignored(item);
    events.insert(events.end(), ended.begin(), ended.end());
  }
  status_ = "incomplete";
  stop_reason_ = std::move(reason);
  emit("response.incomplete", Json::object({{"response", response()}}), events);
  return events;
}

ChatUsage ResponsesAnswer::usage() const {
  return {.input = usage_.input + turn_usage_.input,
          .cached = usage_.cached + turn_usage_.cached,
          .cache_write = usage_.cache_write + turn_usage_.cache_write,
          .output = usage_.output + turn_usage_.output,
          .reasoning = usage_.reasoning + turn_usage_.reasoning};
}

ResponsesAnswer::Events ResponsesAnswer::fail(const OpenAiError& error) {
  Events events;
  kind_ = Kind::kNone;
  for (Json& item : output_) {
    const auto status = item.get_string("status");
    if (status == "in_progress" || status == "interpreting") item["status"] = "incomplete";
  }
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
  Json out = stored();
  if (!call_.code_outputs) hide_outputs(out.find("output")->items());
  return out;
}

Json ResponsesAnswer::stored() const {
  Json incomplete;
  if (status_ == "incomplete") incomplete["reason"] = stop_reason_;
  Json usage;
  if (usage_known_) {
    const ChatUsage told = this->usage();
    usage = Json::object({{"input_tokens", told.input},
                          {"input_tokens_details", Json::object({{"cached_tokens", told.cached},
                                                                 {"cache_write_tokens", told.cache_write}})},
                          {"output_tokens", told.output},
                          {"output_tokens_details", Json::object({{"reasoning_tokens", told.reasoning}})},
                          {"total_tokens", told.input + told.output}});
  }
  Json out = Json::object({{"id", context_.id},
                           {"object", "response"},
                           {"created_at", context_.created_at},
                           {"completed_at", completed_at_ > 0 ? Json(completed_at_) : Json()},
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

void hide_outputs(Json& item) {
  if (item.get_string("type") == "code_interpreter_call") item["outputs"] = nullptr;
}

void hide_outputs(Json::Array& items) {
  for (Json& item : items) hide_outputs(item);
}

}  // namespace capstan::gateway::openai

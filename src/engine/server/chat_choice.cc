// Events of the harmony parser, routed by the header of the message they belong to.
#include "engine/server/chat_choice.h"

#include <algorithm>

#include "base/file.h"
#include "base/json.h"
#include "harmony/conversation.h"

namespace capstan::engine {
namespace {

// A JSON string without its quotes.
std::string escaped(const std::string& text) {
  std::string quoted;
  append_json_string(quoted, text);
  return quoted.substr(1, quoted.size() - 2);
}

ToolCallDelta& arguments_of(ChatDelta& delta, int index) {
  if (delta.tool_calls.empty() || delta.tool_calls.back().index != index)
    delta.tool_calls.push_back({.index = index});
  return delta.tool_calls.back();
}

}  // namespace

ChatChoice::ChatChoice(const harmony::Tokenizer& tokenizer, const harmony::FormatTokens& format, std::vector<std::string> stops,
                       std::span<const ChatTool> tools)
    : tokenizer_(tokenizer), reader_(tokenizer, format), stops_(std::move(stops)), tools_offered_(!tools.empty()) {
  for (const ChatTool& tool : tools) {
    if (tool.custom) custom_tools_.push_back(tool.name);
  }
}

ChatChoice::Route ChatChoice::route_of(const harmony::MessageHeader& header) const {
  const std::string& to = header.recipient;
  if (!to.empty() && to != "assistant" && to != "user" && to != "all") {
    if (!tools_offered_) return Route::kReasoning;
    return to == harmony::kPython ? Route::kPython : Route::kFunction;
  }
  return header.channel == harmony::kAnalysis ? Route::kReasoning : Route::kContent;
}

void ChatChoice::begin(const harmony::MessageHeader& header, ChatDelta& delta) {
  route_ = route_of(header);
  separate_ = route_ == Route::kReasoning ? any_reasoning_ : route_ == Route::kContent && any_content_;
  if (route_ != Route::kFunction && route_ != Route::kPython) return;
  constexpr std::string_view kPrefix = "functions.";
  const std::string name =
      header.recipient.starts_with(kPrefix) ? header.recipient.substr(kPrefix.size()) : header.recipient;
  const bool custom = route_ == Route::kFunction && std::ranges::find(custom_tools_, name) != custom_tools_.end();
  delta.tool_calls.push_back({.index = tool_calls_++, .id = "call_" + random_hex(12), .name = name, .custom = custom});
  input_json_.clear();
  input_.reset();
  if (custom) input_.emplace(kInputArgument);
  if (route_ == Route::kPython) delta.tool_calls.back().arguments = R"({"code":")";
}

void ChatChoice::text(const std::string& text, ChatDelta& delta) {
  const std::string_view gap = std::exchange(separate_, false) ? "\n\n" : "";
  switch (route_) {
    case Route::kReasoning:
      any_reasoning_ = true;
      delta.reasoning += gap;
      delta.reasoning += text;
      break;
    case Route::kContent:
      any_content_ = true;
      delta.content += stops_.push(std::string(gap) + text);
      break;
    case Route::kFunction:
      call_text(text, delta);
      break;
    case Route::kPython:
      arguments_of(delta, tool_calls_ - 1).arguments += escaped(text);
      break;
  }
}

void ChatChoice::call_text(const std::string& text, ChatDelta& delta) {
  if (!input_) {
    arguments_of(delta, tool_calls_ - 1).arguments += text;
    return;
  }
  input_json_ += text;
  const std::string more = input_->next(input_json_);
  if (more.empty()) return;
  ToolCallDelta& call = arguments_of(delta, tool_calls_ - 1);
  call.custom = true;
  call.arguments += more;
}

void ChatChoice::end(ChatDelta& delta) {
  if (route_ == Route::kPython) arguments_of(delta, tool_calls_ - 1).arguments += R"("})";
}

void ChatChoice::apply(const std::vector<harmony::Event>& events, ChatDelta& delta) {
  for (const harmony::Event& event : events) {
    if (stops_.found()) return;
    switch (event.kind) {
      case harmony::Event::Kind::kMessageStart:
        begin(event.header, delta);
        break;
      case harmony::Event::Kind::kText:
        text(event.text, delta);
        break;
      case harmony::Event::Kind::kMessageEnd:
        end(delta);
        break;
    }
  }
}

ChatDelta ChatChoice::push(harmony::TokenId token) {
  ChatDelta delta;
  if (stops_.found()) return delta;
  apply(reader_.push(token), delta);
  const harmony::MessageHeader* open = reader_.parser().open_message();
  const bool in_body = open != nullptr && !tokenizer_.is_special(token);
  last_was_content_ = in_body && route_ == Route::kContent;
  if (in_body && route_ == Route::kReasoning) ++reasoning_tokens_;
  return delta;
}

ChatDelta ChatChoice::finish() {
  ChatDelta delta;
  if (!stops_.found()) {
    apply(reader_.finish(), delta);
    delta.content += stops_.finish();
  }
  return delta;
}

}  // namespace capstan::engine

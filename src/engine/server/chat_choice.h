// One answer under way: a model's tokens -> the pieces of OpenAI's message.
//
// Channels map so: analysis -> reasoning; final, none, unknown, and commentary without recipient -> content;
// a recipient -> a tool call (functions.NAME -> NAME; python -> {"code": "…"}). If the request offered no
// tools, a call cannot be performed by anyone: it is told as reasoning. Several messages of one kind are
// joined by a blank line. Of a custom tool the arguments, {"input": "…"}, become the text in them.
// Stop sequences look at content only. Threads: one owner.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/text_member.h"
#include "engine/server/openai_request.h"
#include "engine/server/stop_strings.h"
#include "harmony/parser.h"

namespace capstan::engine {

struct ToolCallDelta {
  int index = 0;
  std::string id = {};  // id and name stand in the first delta of a call only
  std::string name = {};
  std::string arguments = {};  // of a custom tool its input
  bool custom = false;
};

struct ChatDelta {
  std::string reasoning = {};
  std::string content = {};
  std::vector<ToolCallDelta> tool_calls = {};
  bool empty() const { return reasoning.empty() && content.empty() && tool_calls.empty(); }
};

class ChatChoice {
 public:
  ChatChoice(const harmony::Tokenizer& tokenizer, const harmony::FormatTokens& format,
             std::vector<std::string> stops, std::span<const ChatTool> tools);

  ChatDelta push(harmony::TokenId token);
  ChatDelta finish();

  bool stopped() const { return stops_.found(); }  // a stop sequence was found: nothing more will be told
  bool called_tool() const { return tool_calls_ > 0; }
  int reasoning_tokens() const { return reasoning_tokens_; }
  bool last_was_content() const { return last_was_content_; }  // the token pushed last belongs to the content

 private:
  enum class Route { kReasoning, kContent, kFunction, kPython };
  Route route_of(const harmony::MessageHeader& header) const;
  void apply(const std::vector<harmony::Event>& events, ChatDelta& delta);
  void begin(const harmony::MessageHeader& header, ChatDelta& delta);
  void text(const std::string& text, ChatDelta& delta);
  void call_text(const std::string& text, ChatDelta& delta);
  void end(ChatDelta& delta);

  const harmony::Tokenizer& tokenizer_;
  harmony::TokenReader reader_;
  StopStrings stops_;
  bool tools_offered_;
  std::vector<std::string> custom_tools_;  // their names
  // Of the call under way, if a custom tool is called:
  std::string input_json_;
  std::optional<TextMember> input_;
  Route route_ = Route::kContent;
  bool separate_ = false;  // a blank line is due before the next text of this route
  bool any_reasoning_ = false;
  bool any_content_ = false;
  bool last_was_content_ = false;
  int tool_calls_ = 0;
  int reasoning_tokens_ = 0;
};

}  // namespace capstan::engine

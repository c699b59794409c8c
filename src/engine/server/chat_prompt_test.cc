// Goal: every kind of OpenAI message finds its place in harmony.
#include "engine/server/chat_prompt.h"

#include <gtest/gtest.h>

namespace capstan::engine {
namespace {

harmony::Conversation conversation(const std::string& body, const ModelProfile& profile = {}) {
  const auto request = parse_chat_request(body);
  EXPECT_TRUE(request.has_value()) << request.error().message;
  return chat_conversation(*request, profile, "2026-11-23");
}

// One line a message: role:name>recipient/channel text
std::string told(const harmony::Conversation& conversation) {
  std::string out;
  for (const harmony::Message& message : conversation.messages) {
    out += fmt::format("{}:{}>{}/{} {}\n", harmony::role_name(message.role), message.name, message.recipient,
                       message.channel, message.text);
  }
  return out;
}

constexpr const char* kHistory = R"({"model":"m","reasoning_effort":"high",
  "tools":[{"type":"function","function":{"name":"f","description":"d"}},{"type":"function","function":{"name":"python"}}],
  "messages":[{"role":"system","content":"one"},{"role":"user","content":"q"},{"role":"developer","content":"two"},
    {"role":"assistant","reasoning":"hm","content":"let me see","tool_calls":[
      {"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},
      {"id":"b","type":"function","function":{"name":"python","arguments":"{\"code\":\"1+1\"}"}}]},
    {"role":"tool","tool_call_id":"a","content":"F"},{"role":"tool","tool_call_id":"b","content":"2"},
    {"role":"assistant","content":"done"}]})";

TEST(ChatPrompt, GivesEveryMessageItsPlace) {
  const auto result = conversation(kHistory, {.python = true});
  EXPECT_EQ(result.preamble.instructions, "one\n\ntwo");
  EXPECT_EQ(result.preamble.effort, harmony::ReasoningEffort::kHigh);
  EXPECT_EQ(result.preamble.current_date, "2026-11-23");
  EXPECT_TRUE(result.preamble.python);
  ASSERT_EQ(result.preamble.functions.size(), 1u);
  EXPECT_EQ(told(result),
            "user:>/ q\n"
            "assistant:>/analysis hm\n"
            "assistant:>/commentary let me see\n"
            "assistant:>functions.f/commentary {}\n"
            "assistant:>python/analysis 1+1\n"
            "tool:functions.f>assistant/commentary F\n"
            "tool:python>assistant/analysis 2\n"
            "assistant:>/final done\n");
}

TEST(ChatPrompt, PythonIsAFunctionLikeOthersWhereTheModelHasNoSuchTool) {
  const auto result = conversation(kHistory);
  EXPECT_FALSE(result.preamble.python);
  EXPECT_EQ(result.preamble.functions.size(), 2u);
  EXPECT_NE(told(result).find("assistant:>functions.python/commentary {\"code\":\"1+1\"}"),
            std::string::npos);
}

}  // namespace
}  // namespace capstan::engine

// Goal: what broke other servers of gpt-oss does not break this one: what a client sees of each stream is
// what the model meant, whole and piece by piece. Each case names where it was reported; its stream is of
// that shape.
#include <gtest/gtest.h>

#include "base/json.h"
#include "engine/server/chat_choice.h"
#include "harmony/tokenizer_testing.h"

namespace capstan::engine {
namespace {

struct KnownBug {
  const char* where;
  const char* stream;  // behind <|start|>assistant
  // What the client sees: reasoning | content | name(arguments)…
  const char* seen;
  bool tools = true;
};

constexpr KnownBug kBugs[] = {
    // The parser raised, and the request ended in a 500.
    {"harmony 38, a word before the channel",
     "––commentary<|channel|>commentary to=functions.f "
     "<|constrain|>json<|message|>{}<|call|>",
     "|––commentary|f({})"},
    {"harmony 60 and vLLM 22515, text where a start was expected",
     "<|channel|>analysis<|message|>a"
     "<|end|>commentary says<|return|>",
     "a|commentary says|"},
    {"vLLM 22519, an end where a start was expected",
     "<|channel|>analysis<|message|>a<|end|><|end|>"
     "<|start|>assistant<|channel|>final<|message|>b<|return|>",
     "a|b|"},
    {"vLLM 22519, a return where a start was expected", "<|channel|>analysis<|message|>a<|end|><|return|>",
     "a||"},
    {"vLLM 22519, a full stop where a start was expected",
     "<|channel|>final<|message|>a<|end|>."
     "<|return|>",
     "|a\n\n.|"},
    {"vLLM 23567 and OVH 993, what is left of a header",
     "<|channel|>commentary to=functions.f <|constrain|>json to=functions.f<|message|>{}<|call|>", "||f({})"},
    {"vLLM 51977, a hyphen in a recipient",
     "<|channel|>commentary to=functions.web-browsing <|constrain|>json"
     "<|message|>{\"q\":1}<|call|>",
     "||web-browsing({\"q\":1})"},
    {"LMDeploy 3962, a header of hundreds of words is text",
     "<|channel|>prompt_token_id=[200006, 17360, 200008, 3575, 553, 17554, 162016, 11, 261, 4410]<|message|>x"
     "<|return|>",
     "|x|"},
    // Calls were lost, or told as text.
    {"mlxcel 654 and macprovider 743, the channel's marks in the content",
     "<|channel|>analysis<|message|>read it<|end|><|start|>assistant"
     "<|channel|>commentary to=functions.read_file "
     "<|constrain|>json<|message|>{\"path\":\"/etc/hosts\"}<|call|>",
     "read it||read_file({\"path\":\"/etc/hosts\"})"},
    {"tiles 145 and Rapid-MLX 480, no constrain mark, json behind the recipient",
     "<|channel|>commentary to=functions.get_weather json<|message|>{\"city\":\"Paris\"}"
     "<|call|>",
     "||get_weather({\"city\":\"Paris\"})"},
    {"Rapid-MLX 438, the call mark is a stop token and never seen",
     "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{\"a\":1}", "||f({\"a\":1})"},
    {"LM Studio 942, arguments that break off stay arguments",
     "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{\"data\":{\"a\":{}",
     "||f({\"data\":{\"a\":{})"},
    {"vLLM 22604, the recipient stands in the role's part",
     " to=functions.f<|channel|>commentary "
     "<|constrain|>json<|message|>{}<|call|>",
     "||f({})"},
    {"llama.cpp 15181, both places in one turn",
     " to=functions.a<|channel|>commentary<|message|>{}<|call|><|start|>assistant"
     "<|channel|>commentary to=functions.b<|message|>{}<|call|>",
     "||a({})b({})"},
    {"Dynamo 2999, reasoning, preamble and call in one stream",
     "<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
     "<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}<|call|>",
     "think|I look.|f({})"},
    {"LM Studio 942, a recipient without its namespace",
     "<|channel|>commentary to=get_weather"
     "<|constrain|>json<|message|>{}<|call|>",
     "||get_weather({})"},
    {"imp 1716, a call that nobody can answer is not the answer",
     "<|channel|>commentary to=functions.f"
     "<|message|>{}<|call|>",
     "{}||", false},
    // Streams.
    {"a mark spelled out in a final answer's quotation stays one",
     "<|channel|>final<|message|>it says final"
     "<|return|>",
     "|it says final|"},
    {"LM Studio 1555, a schema's answer behind reasoning",
     "<|channel|>analysis<|message|>{ not json<|end|>"
     "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{\"a\":1}<|return|>",
     "{ not json|{\"a\":1}|"},
    {"llama.cpp 20393, commentary without a recipient is for the user",
     "<|channel|>commentary<|message|>Note."
     "<|end|><|start|>assistant<|channel|>final<|message|>Done.<|return|>",
     "|Note.\n\nDone.|"},
    {"a custom tool's input is the text in its arguments, escapes read",
     "<|channel|>commentary to=functions.patch <|constrain|>json<|message|>{\"input\": \"*** é\\n\\u00e9\\\"\"}<|call|>",
     "||patch(*** é\né\")"},
    {"one that is cut off is told as far as it came",
     "<|channel|>commentary to=functions.patch <|constrain|>json<|message|>{\"input\": \"ab\\", "||patch(ab)"},
};

// Pieces joined as a client joins them.
std::string seen(const KnownBug& bug) {
  const harmony::Tokenizer tokenizer = harmony::byte_level_tokenizer();
  std::vector<ChatTool> tools;
  if (bug.tools) tools = {{.name = "f"}, {.name = "patch", .custom = true}};
  ChatChoice choice(tokenizer, *harmony::FormatTokens::of(tokenizer), {}, tools);
  std::string reasoning, content;
  std::vector<std::pair<std::string, std::string>> calls;
  const auto add = [&](const ChatDelta& delta) {
    reasoning += delta.reasoning;
    content += delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) {
      if (static_cast<std::size_t>(call.index) >= calls.size())
        calls.resize(static_cast<std::size_t>(call.index) + 1);
      calls[static_cast<std::size_t>(call.index)].first += call.name;
      calls[static_cast<std::size_t>(call.index)].second += call.arguments;
    }
  };
  for (const harmony::TokenId token : tokenizer.encode_with_specials(bug.stream)) add(choice.push(token));
  add(choice.finish());
  std::string out = reasoning + "|" + content + "|";
  for (const auto& [name, arguments] : calls) out += name + "(" + arguments + ")";
  return out;
}

TEST(KnownBugs, OfOtherServersAreNotOurs) {
  for (const KnownBug& bug : kBugs) EXPECT_EQ(seen(bug), bug.seen) << bug.where;
}

}  // namespace
}  // namespace capstan::engine

// Conversation: a problem in harmony form, as token ids and as what a caller would send.
//
// Ids 0 to 255 are bytes, then the special tokens below. There is no system message, unless the caller offers
// the python tool. Only what the assistant writes in its last turn is scored.
//   <|start|>user<|message|>48217+9386<|end|><|start|>assistant<|channel|>analysis<|message|>…<|end|>
//   <|start|>assistant<|channel|>final<|message|>57603<|return|>
// Pure; threads: any.  Source: docs/format.md of github.com/openai/harmony.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/prng.h"
#include "trainer/abacus/problem.h"
#include "trainer/data.h"

namespace capstan::trainer::abacus {

enum Special : std::int32_t {
  kEndOfText = 256,
  kStart,
  kEnd,
  kMessage,
  kChannel,
  kConstrain,
  kReturn,
  kCall,
  kFirstReserved,
};
inline constexpr std::int32_t kVocabulary = 272;

// "<|start|>" for kStart, …, "<|reserved_264|>".
std::string special_name(std::int32_t id);

struct Turn {
  std::string question, answer;
};

struct Conversation {
  Problem problem;
  std::string question;
  bool offers_python = false;
  std::string instructions;   // a developer message, if not empty
  std::vector<Turn> earlier;  // without their workings
};

inline constexpr std::string_view kPythonTools = "# Tools\n\n## python";

// `held_out` chooses the side of the split for the problem; earlier turns always hold training problems.
Conversation draw_conversation(Kind kind, bool held_out, Prng& rng, Numbers numbers = Numbers::kHard);

// "print(123456789 * 987654321)"; a division prints quotient and remainder. Its output: "142 3".
std::string python_call(const Problem& problem);
std::string python_output(const Problem& problem);

// Everything up to and with "<|start|>assistant": what an engine is given.
std::vector<std::int32_t> prompt_tokens(const Conversation& conversation);

// The whole conversation with which tokens count.
Sample to_sample(const Conversation& conversation, Prng& rng);

}  // namespace capstan::trainer::abacus

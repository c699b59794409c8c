// Structured output: harmony's frame and the bodies that a request binds, as a constraint on tokens.
//
//   if (is_structured(request)) { auto constraint = model.structured->chat(model, request, tokens_left); … }
//
// What is bound: the body of the final message by response_format (or a grammar, a pattern, choices), and the
// arguments of calls of strict functions; with tool_choice required or named the turn must end in a call.
// Around them the model chooses freely among harmony's messages: any number of analysis messages, preambles
// if there are tools, recipients in either place, with or without <|constrain|>. Reasoning keeps a quarter of
// the budget (at most kReserveMax tokens) for the answer; near the end of the budget only what still leads to
// a whole answer is allowed.
//
// Compiled grammars are kept (kPlansMax, by their text), so that the same schema costs its compilation once.
// Failure: the ApiError of what cannot be enforced, with the place in the schema. Threads: any.
#pragma once

#include <deque>
#include <expected>
#include <memory>
#include <mutex>
#include <string>

#include "engine/batching/token_constraint.h"
#include "engine/grammar/token_matcher.h"
#include "engine/server/openai_request.h"

namespace capstan::engine {

struct ServedModel;

inline constexpr std::size_t kPlansMax = 32;
inline constexpr std::uint32_t kReserveMax = 512;

// Does the request bind anything?
bool is_structured(const ChatRequest& request);

class StructuredAnswers {
 public:
  // `tokens_left`: of the answer, all of it. Each answer needs a constraint of its own.
  using Made = std::expected<std::shared_ptr<TokenConstraint>, ApiError>;
  Made chat(const ServedModel& model, const ChatRequest& request, std::uint32_t tokens_left);
  Made completion(const ServedModel& model, const CompletionRequest& request, std::uint32_t tokens_left);

 private:
  using Grammars = std::expected<std::shared_ptr<const Grammar>, ApiError>;
  struct Kept {
    std::string key;
    std::shared_ptr<TokenPlan> plan;
  };
  template <class Compile>
  std::expected<std::shared_ptr<TokenPlan>, ApiError> plan(const ServedModel& model, std::string key,
                                                           Compile compile);

  std::mutex mutex_;
  std::shared_ptr<const TokenTrie> trie_;  // made when it is first needed
  std::deque<Kept> kept_;                  // the last used first
};

}  // namespace capstan::engine

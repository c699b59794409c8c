// A conversation, and the request that asks a model to go on with it: chat completions or the Responses API.
//
//   Conversation conversation(spec.instructions, spec.prompt);
//   Json body = request_body(spec.model, spec.tools, conversation, {.seed = 1, .max_tokens = 4096});
//   conversation.add(reply);  conversation.add_result(reply.calls[0], outcome.output);
//
// Pure: the same conversation gives the same bytes, so a request's hash says that a replay came to the same
// point. Reasoning goes back with its turn, as models with the harmony format want it while their calls wait
// for results.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "agents/loop/spec.h"
#include "agents/loop/step.h"

namespace capstan::agents::loop {

class Conversation {
 public:
  struct User {
    std::string text;
  };
  struct Result {
    ToolCall call;
    std::string output;
  };
  using Turn = std::variant<User, ModelReply, Result>;

  Conversation(std::string instructions, std::string prompt);
  void add(ModelReply reply) { turns_.push_back(std::move(reply)); }
  void add_result(ToolCall call, std::string output) {
    turns_.push_back(Result{std::move(call), std::move(output)});
  }
  void add_user(std::string text) { turns_.push_back(User{std::move(text)}); }

  const std::string& instructions() const { return instructions_; }
  const std::vector<Turn>& turns() const { return turns_; }

 private:
  std::string instructions_;
  std::vector<Turn> turns_;
};

struct Sampling {
  std::int64_t seed = 1;
  std::optional<double> temperature;
  std::int64_t max_tokens = 0;
};

// Streams, and wants the tokens counted.
Json request_body(const ModelSpec& model, const std::vector<Tool>& tools, const Conversation& conversation,
                  const Sampling& sampling);

}  // namespace capstan::agents::loop

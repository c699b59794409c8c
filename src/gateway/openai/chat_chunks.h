// The whole chat completion that the chunks of a stream tell.
//
//   ChatChunks chunks;
//   chunks.push(data);                       // of each server-sent event
//   if (auto completion = chunks.take()) …   // as the same request without `stream` would have been answered
//
// Texts and a call's arguments are joined, log-probabilities follow each other, other members are the last ones told.
// What is no chunk of a completion (an error, "[DONE]") is passed over. Threads: a value.
#pragma once

#include <optional>
#include <string_view>

#include "base/json.h"

namespace capstan::gateway::openai {

class ChatChunks {
 public:
  void push(std::string_view data);
  // Nothing unless every choice has ended.
  std::optional<Json> take();

 private:
  Json completion_ = Json::object();
  Json::Array choices_;  // by index
};

}  // namespace capstan::gateway::openai

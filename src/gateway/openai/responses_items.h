// Items of the Responses API (messages, reasoning, function calls and their outputs) as chat messages.
//
// A model's turn may be several items: reasoning, a message, calls. They become one assistant message; a call of
// the code interpreter ends it, and its outputs follow. Items that only another hosted tool could have made
// (web_search_call and others) are skipped; other types are refused, as are calls without outputs and outputs without calls.
// Threads: pure; the two functions are called from where it is called.  Failure: OpenAI's error, with the item's path.
#pragma once

#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {

// What the model knows the tool code_interpreter as.
inline constexpr std::string_view kCodeFunction = "python";
inline constexpr std::string_view kCodeArgument = "code";  // its one argument

struct ItemSources {
  // The reasoning in an encrypted_content; nullopt if it was not closed here.
  std::function<std::optional<std::string>(const std::string& blob)> open;
  // The stored item that an item_reference names; nullopt if there is none.
  std::function<std::optional<Json>(const std::string& id)> find;
};

// Appends to `messages`, an array.
std::expected<void, OpenAiError> add_items(const Json::Array& items, const ItemSources& sources,
                                           Json& messages);

// What is wrong with an item by itself, whatever stands around it.
std::expected<void, OpenAiError> check_item(const Json& item, const std::string& path);

// A request's `input` as a list of items, each with an id: a text becomes one message of the user.
std::expected<Json::Array, OpenAiError> input_items(const Json& input);

}  // namespace capstan::gateway::openai

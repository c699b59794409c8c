#include "gateway/openai/chat_chunks.h"

#include <algorithm>

namespace capstan::gateway::openai {
namespace {

constexpr std::int64_t kIndexMax = 1023;  // of choices and calls; beyond it a chunk is passed over

// The element of that index, made with those before it.
Json* at_index(Json::Array& list, const Json& piece) {
  const std::int64_t index = piece.get_int("index").value_or(0);
  if (index < 0 || index > kIndexMax) return nullptr;
  if (list.size() <= static_cast<std::size_t>(index)) list.resize(static_cast<std::size_t>(index) + 1, Json::object());
  return &list[static_cast<std::size_t>(index)];
}

void join(Json& text, const Json& piece) {
  if (piece.is_string()) text = (text.is_string() ? text.as_string() : std::string()) + piece.as_string();
}

void join_calls(Json& message, const Json& pieces) {
  Json& calls = message["tool_calls"];
  if (!calls.is_array()) calls = Json::array();
  for (const Json& piece : pieces.items()) {
    Json* call = at_index(calls.items(), piece);
    if (call == nullptr) continue;
    for (const auto& [key, value] : piece.members()) {
      if (key == "index") continue;
      if (!value.is_object()) {
        (*call)[key] = value;
        continue;
      }
      for (const auto& [name, part] : value.members()) {
        if (name == "arguments" || name == "input") {
          join((*call)[key][name], part);
        } else {
          (*call)[key][name] = part;
        }
      }
    }
  }
}

void join_delta(Json& message, const Json& delta) {
  for (const auto& [key, value] : delta.members()) {
    if (key == "tool_calls" && value.is_array()) {
      join_calls(message, value);
    } else if (value.is_string() && key != "role") {
      join(message[key], value);
    } else if (!value.is_null() || message.find(key) == nullptr) {
      message[key] = value;
    }
  }
}

void join_logprobs(Json& kept, const Json& piece) {
  for (const auto& [key, value] : piece.members()) {
    Json& list = kept[key];
    if (!value.is_array()) continue;
    if (!list.is_array()) list = Json::array();
    list.items().insert(list.items().end(), value.items().begin(), value.items().end());
  }
}

void join_choice(Json& choice, const Json& piece) {
  if (choice.size() == 0)
    choice = Json::object({{"index", piece.get_int("index").value_or(0)},
                           {"message", Json::object({{"role", "assistant"}, {"content", nullptr}})},
                           {"logprobs", nullptr},
                           {"finish_reason", nullptr}});
  if (const Json* delta = piece.find("delta"); delta != nullptr && delta->is_object()) join_delta(choice["message"], *delta);
  if (const Json* logprobs = piece.find("logprobs"); logprobs != nullptr && logprobs->is_object())
    join_logprobs(choice["logprobs"], *logprobs);
  if (const Json* reason = piece.find("finish_reason"); reason != nullptr && reason->is_string())
    choice["finish_reason"] = *reason;
}

}  // namespace

void ChatChunks::push(std::string_view data) {
  const auto chunk = Json::parse(data);
  if (!chunk || !chunk->is_object() || chunk->find("choices") == nullptr || !chunk->find("choices")->is_array()) return;
  for (const auto& [key, value] : chunk->members()) {
    if (key == "choices" || (value.is_null() && completion_.find(key) != nullptr)) continue;
    completion_[key] = key == "object" ? Json("chat.completion") : value;
  }
  for (const Json& piece : chunk->find("choices")->items()) {
    if (!piece.is_object()) continue;
    if (Json* choice = at_index(choices_, piece)) join_choice(*choice, piece);
  }
}

std::optional<Json> ChatChunks::take() {
  const bool ended = !choices_.empty() && std::ranges::all_of(choices_, [](const Json& choice) {
    return choice.get_string("finish_reason").has_value();
  });
  if (!ended) return std::nullopt;
  completion_["choices"] = std::move(choices_);
  return std::move(completion_);
}

}  // namespace capstan::gateway::openai

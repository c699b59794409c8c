#include "gateway/openai/chat_exchange.h"

#include <ctime>

#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {
namespace {

// What a kept completion says of its request, with what is meant where the request says nothing.
constexpr std::pair<std::string_view, double> kNumbers[] = {
    {"temperature", 1}, {"top_p", 1}, {"presence_penalty", 0}, {"frequency_penalty", 0}};
constexpr std::string_view kOthers[] = {"seed", "tools", "tool_choice", "response_format", "reasoning_effort"};

}  // namespace

std::expected<UpstreamCall, http::Response> ChatExchange::begin(http::Request& request, const Caller& caller) {
  auto call = relay_.begin(request, caller);
  if (call && relay_.store_wanted()) {
    owner_ = owner_of(caller);
    body_ = call->body;
  }
  return call;
}

void ChatExchange::on_answer(http::Response answer, const Usage* usage, Reply& reply) {
  if (relay_.store_wanted() && answer.status == 200) {
    if (auto completion = Json::parse(answer.body); completion && completion->is_object())
      keep(*std::move(completion), reply.request_id());
  }
  relay_.on_answer(std::move(answer), usage, reply);
}

void ChatExchange::on_event(const StreamEvent& event, Reply& reply) {
  if (relay_.store_wanted()) chunks_.push(event.data);
  relay_.on_event(event, reply);
}

void ChatExchange::on_stream_end(const Usage& usage, Reply& reply) {
  if (relay_.store_wanted()) {
    if (auto completion = chunks_.take()) keep(*std::move(completion), reply.request_id());
  }
  relay_.on_stream_end(usage, reply);
}

void ChatExchange::keep(Json completion, const std::string& request_id) {
  const auto body = Json::parse(body_);
  const auto id = completion.get_string("id");
  if (!body || !id) return;  // nobody could ask for one without an id
  const auto said = [&](std::string_view key, Json otherwise) {
    const Json* value = body->find(key);
    completion[key] = value == nullptr || value->is_null() ? std::move(otherwise) : *value;
  };
  for (const auto& [key, otherwise] : kNumbers) said(key, otherwise);
  for (const std::string_view key : kOthers) said(key, nullptr);
  said("metadata", Json::object());
  if (completion.find("service_tier") == nullptr) said("service_tier", "default");
  completion["input_user"] = nullptr;
  if (const Json* user = body->find("user")) completion["input_user"] = *user;
  completion["request_id"] = request_id;
  StoredChat chat{.id = *id, .owner = owner_, .created = completion.get_int("created").value_or(std::time(nullptr))};
  chat.model = completion.get_string("model").value_or("");
  if (const Json* messages = body->find("messages"); messages != nullptr && messages->is_array())
    chat.messages = messages->items();
  chat.completion = std::move(completion);
  chats_.put(std::move(chat));
}

}  // namespace capstan::gateway::openai

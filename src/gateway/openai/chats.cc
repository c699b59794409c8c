#include "gateway/openai/chats.h"

#include "gateway/openai/chat_exchange.h"
#include "gateway/openai/endpoints.h"
#include "gateway/openai/responses_checks.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {
namespace {

// ?model=M&metadata[KEY]=VALUE
ChatStore::Filter filter_of(const http::Request& request) {
  ChatStore::Filter filter{.model = request.query_value("model").value_or("")};
  constexpr std::string_view kOpen = "metadata[";
  for (const auto& [name, value] : request.query) {
    if (name.starts_with(kOpen) && name.ends_with(']'))
      filter.metadata[name.substr(kOpen.size(), name.size() - kOpen.size() - 1)] = value;
  }
  return filter;
}

// A message of the request as lists of them show it: with an id, and content of several parts apart from text.
Json message_object(const std::string& id, std::size_t index, const Json& message) {
  Json object = Json::object({{"id", fmt::format("{}-{}", id, index)}, {"role", nullptr}, {"content", nullptr}, {"name", nullptr},
                              {"content_parts", nullptr}});
  for (const auto& [key, value] : message.members())
    object[key == "content" && value.is_array() ? std::string("content_parts") : key] = value;
  return object;
}

http::Response messages_answer(const ChatStore& chats, const http::Request& request, const Caller& caller) {
  const std::string id = request.param("id");
  const auto paging = paging_of(request, 20, 100, Order::kAscending);
  if (!paging) return to_response(paging.error());
  const auto messages = chats.messages(owner_of(caller), id);
  if (!messages) return answer_of(messages.error());
  Json::Array objects;
  for (const Json& message : *messages) objects.push_back(message_object(id, objects.size(), message));
  return http::Response::json(200, page_of(std::move(objects), *paging));
}

http::Response update_answer(ChatStore& chats, const http::Request& request, const Caller& caller) {
  const auto body = Json::parse(request.body);
  if (!body || !body->is_object()) return to_response({.message = "the body must be a JSON object"});
  const Json* metadata = body->find("metadata");
  if (metadata == nullptr) return to_response(missing("metadata").error());
  if (const auto checked = check_metadata(*body); !checked) return to_response(checked.error());
  return answer_of(chats.set_metadata(owner_of(caller), request.param("id"), *metadata));
}

}  // namespace

void add_chats(Gateway& gateway, ChatStore& chats) {
  const std::string all = "/v1/chat/completions", one = all + "/{id}";
  gateway.add_exchange("POST", all, [&chats] { return std::make_unique<ChatExchange>(chats); });
  route(gateway, "GET", all, [&chats](const http::Request& request, const Caller& caller) {
    const auto paging = paging_of(request, 20, 100, Order::kAscending);
    if (!paging) return to_response(paging.error());
    return answer_of(chats.list(owner_of(caller), filter_of(request), *paging));
  });
  route(gateway, "GET", one, [&chats](const http::Request& request, const Caller& caller) {
    return answer_of(chats.find(owner_of(caller), request.param("id")));
  });
  route(gateway, "POST", one, [&chats](const http::Request& request, const Caller& caller) {
    return update_answer(chats, request, caller);
  });
  route(gateway, "DELETE", one, [&chats](const http::Request& request, const Caller& caller) {
    const std::string id = request.param("id");
    const auto removed = chats.remove(owner_of(caller), id);
    if (!removed) return answer_of(removed.error());
    return http::Response::json(200, Json::object({{"object", "chat.completion.deleted"}, {"id", id}, {"deleted", true}}));
  });
  route(gateway, "GET", one + "/messages", [&chats](const http::Request& request, const Caller& caller) {
    return messages_answer(chats, request, caller);
  });
}

}  // namespace capstan::gateway::openai

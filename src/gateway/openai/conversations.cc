#include "gateway/openai/conversations.h"

#include <algorithm>

#include "gateway/openai/endpoints.h"
#include "gateway/openai/responses_checks.h"
#include "gateway/openai/responses_items.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {
namespace {

constexpr std::size_t kItemsAtOnceMax = 20;

// The body of a request: an object, whose metadata are well-formed.
std::expected<Json, ApiError> body_of(const http::Request& request) {
  if (request.body.empty()) return Json::object();
  auto body = Json::parse(request.body);
  if (!body || !body->is_object()) return std::unexpected(ApiError{.message = "the body must be a JSON object"});
  if (const auto checked = check_metadata(*body); !checked) return std::unexpected(checked.error());
  return *std::move(body);
}

// The items that a body adds, each complete and readable.
std::expected<Json::Array, ApiError> items_of(const Json& body, bool required) {
  const Json* items = given(body, "items");
  if (items == nullptr) return required ? missing("items") : std::expected<Json::Array, ApiError>();
  if (!items->is_array()) return wrong_type("items", "an array", *items);
  if (items->size() > kItemsAtOnceMax) return too_many("items", kItemsAtOnceMax, items->size());
  if (items->size() == 0) return Json::Array();
  auto read = input_items(*items);
  if (!read) return read;
  for (std::size_t i = 0; i < read->size(); ++i) {
    if (const auto checked = check_item((*read)[i], fmt::format("items[{}]", i)); !checked)
      return std::unexpected(checked.error());
  }
  return read;
}

Json list_of(Json::Array items) {
  return page_of(std::move(items), {.limit = kConversationItemsMax, .ascending = true, .after = {}});
}

void add_items_routes(Gateway& gateway, ConversationStore& conversations) {
  const std::string items = "/v1/conversations/{id}/items", item = items + "/{item}";
  route(gateway, "GET", items, [&conversations](const http::Request& request, const Caller& caller) {
    const auto paging = paging_of(request, 20, 100);
    if (!paging) return to_response(paging.error());
    auto all = conversations.items(owner_of(caller), request.param("id"));
    if (!all) return answer_of(all.error());
    if (!wants_outputs(request)) hide_outputs(*all);
    return http::Response::json(200, page_of(*std::move(all), *paging));
  });
  route(gateway, "POST", items, [&conversations](const http::Request& request, const Caller& caller) {
    const auto body = body_of(request);
    if (!body) return to_response(body.error());
    auto added = items_of(*body, true);
    if (!added) return to_response(added.error());
    if (const auto kept = conversations.add(owner_of(caller), request.param("id"), *added); !kept)
      return answer_of(kept.error());
    return http::Response::json(200, list_of(*std::move(added)));
  });
  route(gateway, "GET", item, [&conversations](const http::Request& request, const Caller& caller) {
    auto all = conversations.items(owner_of(caller), request.param("id"));
    if (!all) return answer_of(all.error());
    if (!wants_outputs(request)) hide_outputs(*all);
    for (const Json& one : *all) {
      if (one.get_string("id") == request.param("item")) return http::Response::json(200, one);
    }
    return to_response({.status = 404, .message = fmt::format("Item with id '{}' not found.", request.param("item"))});
  });
  route(gateway, "DELETE", item, [&conversations](const http::Request& request, const Caller& caller) {
    const std::string owner = owner_of(caller);
    const auto removed = conversations.remove_item(owner, request.param("id"), request.param("item"));
    return removed ? answer_of(conversations.find(owner, request.param("id"))) : answer_of(removed.error());
  });
}

}  // namespace

void add_conversations(Gateway& gateway, ConversationStore& conversations) {
  const std::string one = "/v1/conversations/{id}";
  route(gateway, "POST", "/v1/conversations", [&conversations](const http::Request& request, const Caller& caller) {
    const auto body = body_of(request);
    if (!body) return to_response(body.error());
    const auto items = items_of(*body, false);
    if (!items) return to_response(items.error());
    const Json* metadata = body->find("metadata");
    return answer_of(conversations.create(owner_of(caller), metadata == nullptr ? Json() : *metadata, *items));
  });
  route(gateway, "GET", one, [&conversations](const http::Request& request, const Caller& caller) {
    return answer_of(conversations.find(owner_of(caller), request.param("id")));
  });
  route(gateway, "POST", one, [&conversations](const http::Request& request, const Caller& caller) {
    const auto body = body_of(request);
    if (!body) return to_response(body.error());
    const Json* metadata = body->find("metadata");
    if (metadata == nullptr) return to_response(missing("metadata").error());
    return answer_of(conversations.set_metadata(owner_of(caller), request.param("id"), *metadata));
  });
  route(gateway, "DELETE", one, [&conversations](const http::Request& request, const Caller& caller) {
    const std::string id = request.param("id");
    const auto removed = conversations.remove(owner_of(caller), id);
    if (!removed) return answer_of(removed.error());
    return http::Response::json(200, Json::object({{"id", id}, {"object", "conversation.deleted"}, {"deleted", true}}));
  });
  add_items_routes(gateway, conversations);
}

}  // namespace capstan::gateway::openai

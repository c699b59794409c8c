#include "gateway/openai/responses_state.h"

#include <ctime>

#include "base/file.h"
#include "gateway/openai/responses_error.h"
#include "gateway/openai_error.h"
#include "store/secret_box.h"

namespace capstan::gateway::openai {
namespace {

constexpr std::string_view kSealContext = "reasoning.encrypted_content";

}  // namespace

std::string owner_of(const Caller& caller) { return caller.organisation + "/" + caller.project; }

ResponsesState::ResponsesState(store::Database& database, std::string seal_key)
    : store_(database), conversations_(database), seal_key_(std::move(seal_key)) {}

std::expected<ResponsesState::Prepared, ApiError> ResponsesState::prepare(std::string_view body,
                                                                          const std::string& owner) const {
  auto call = parse_responses_request(body);
  if (!call) return std::unexpected(call.error());
  const auto previous = history(*call, owner);
  if (!previous) return std::unexpected(previous.error());
  auto chat = this->chat(*call, owner, *previous);
  if (!chat) return std::unexpected(chat.error());
  return Prepared{*std::move(call), *std::move(chat)};
}

std::expected<Json::Array, ApiError> ResponsesState::history(const ResponsesCall& call,
                                                             const std::string& owner) const {
  if (!call.conversation.empty()) {
    auto items = conversations_.items(owner, call.conversation);
    if (items) return *std::move(items);
    return std::unexpected(ApiError{.status = items.error().code == Code::kNotFound ? 404 : 500,
                                    .message = items.error().message,
                                    .param = "conversation"});
  }
  if (call.previous_response_id.empty()) return Json::Array();
  auto history = store_.history(owner, call.previous_response_id);
  if (history) return *std::move(history);
  const bool absent = history.error().code == Code::kNotFound;
  return std::unexpected(
      ApiError{.status = absent || history.error().code == Code::kInvalid ? 400 : 500,
               .message = absent ? fmt::format("Previous response with id '{}' not found.", call.previous_response_id)
                                 : history.error().message,
               .param = "previous_response_id",
               .code = absent ? "previous_response_not_found" : ""});
}

std::expected<Json, ApiError> ResponsesState::chat(const ResponsesCall& call, const std::string& owner,
                                                   const Json::Array& previous) const {
  const ItemSources sources{[&](const std::string& blob) -> std::optional<std::string> {
                              auto text = store::unseal(seal_key_, blob, kSealContext);
                              return text ? std::optional(*std::move(text)) : std::nullopt;
                            },
                            [&](const std::string& id) -> std::optional<Json> {
                              auto item = store_.find_item(owner, id);
                              return item ? std::optional(*std::move(item)) : std::nullopt;
                            }};
  return chat_of_responses(call, previous, sources);
}

ResponsesAnswer ResponsesState::answer(const ResponsesCall& call) {
  return {call,
          {.id = "resp_" + random_hex(24),
           .created_at = static_cast<std::int64_t>(std::time(nullptr)),
           .new_id = [] { return random_hex(24); },
           .close = [this](const std::string& text) { return store::seal(seal_key_, text, kSealContext); },
           .now = [] { return static_cast<std::int64_t>(std::time(nullptr)); }}};
}

void ResponsesState::keep(const ResponsesCall& call, const std::string& owner, const Json& response) {
  const std::string status = response.get_string("status").value_or("");
  if (!call.conversation.empty() && (status == "completed" || status == "incomplete")) {
    Json::Array items = call.input;
    std::erase_if(items, [](const Json& item) { return item.get_string("type") == "item_reference"; });
    const Json::Array& output = response.find("output")->items();
    items.insert(items.end(), output.begin(), output.end());
    conversations_.append(call.conversation, std::move(items));
  }
  if (!call.store) return;
  store_.put({.id = *response.get_string("id"),
              .owner = owner,
              .created = *response.get_int("created_at"),
              .previous_id = call.previous_response_id,
              .input = call.input,
              .response = response});
}

}  // namespace capstan::gateway::openai

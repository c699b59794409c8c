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

ResponsesState::ResponsesState(Gateway& gateway, store::Database& database, std::string seal_key)
    : gateway_(gateway), store_(database), conversations_(database), seal_key_(std::move(seal_key)) {}

ResponsesState::~ResponsesState() {
  std::map<std::string, std::unique_ptr<Background>> rest;
  {
    const std::scoped_lock lock(mutex_);
    rest.swap(background_);
  }
  for (const auto& [id, one] : rest) one->call.cancel();
}

std::expected<ResponsesCall, ApiError> ResponsesState::read(std::string_view body) const {
  auto call = parse_responses_request(body);
  if (call && call->background && call->stream)
    return std::unexpected(
        ApiError{.message = "'stream' and 'background' together are not served; fetch the response by its id",
                 .param = "stream",
                 .code = "unsupported_parameter"});
  return call;
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

ResponsesState::Ask ResponsesState::chat_completion(std::string body) {
  return [this, body = std::move(body)](LocalCall& local, const CallerPtr& caller, const ResponsesAnswer&) {
    return local.perform(gateway_, caller, "/v1/chat/completions", body);
  };
}

http::Response ResponsesState::begin_background(const ResponsesCall& call, const Caller& caller, Ask ask) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(background_, [](const auto& entry) { return entry.second->done; });
  if (background_.size() >= kBackgroundMax)
    return to_response(
        {.status = 429,
         .message =
             fmt::format("{} responses are being made in the background, which is the limit; try again later",
                         kBackgroundMax),
         .type = "rate_limit_error",
         .code = "rate_limit_exceeded"});
  ResponsesAnswer answer = this->answer(call);
  Json response = answer.response();
  const std::string id = *response.get_string("id");
  keep(call, owner_of(caller), response);
  response["status"] = "queued";
  auto& one = background_[id] = std::make_unique<Background>();
  one->thread = std::jthread(
      [this, id, call, answer = std::move(answer), ask = std::move(ask), who = std::make_shared<Caller>(caller),
       local = &one->call]() mutable { make(id, call, std::move(answer), ask, who, *local); });
  return http::Response::json(200, response);
}

void ResponsesState::make(const std::string& id, const ResponsesCall& call, ResponsesAnswer answer, const Ask& ask,
                          const CallerPtr& caller, LocalCall& local) {
  const http::Response got = ask(local, caller, answer);
  const auto made = got.status == 200 ? Json::parse(got.body) : Json();
  if (made && made->get_string("object") == "response") {
    keep(call, owner_of(*caller), *made);
  } else {
    const auto delta = got.status == 200
                           ? read_chat_completion(got.body)
                           : std::unexpected(in_responses_terms(read_error(got.status, got.body)));
    if (got.status == 499) {
      answer.cancel();
    } else if (delta) {
      answer.push(*delta);
      answer.finish();
    } else {
      answer.fail(delta.error());
    }
    keep(call, owner_of(*caller), answer.response());
  }
  const std::scoped_lock lock(mutex_);
  if (const auto found = background_.find(id); found != background_.end()) found->second->done = true;
}

http::Response ResponsesState::cancel_background(const std::string& owner, const std::string& id) {
  auto stored = store_.find(owner, id);
  if (!stored) return to_response({.status = 404, .message = stored.error().message});
  if (!stored->response.get_bool("background").value_or(false))
    return to_response(
        {.status = 400, .message = "only a response that was made with 'background': true can be cancelled"});
  std::unique_ptr<Background> one;
  {
    const std::scoped_lock lock(mutex_);
    const auto found = background_.find(id);
    if (found != background_.end()) {
      one = std::move(found->second);
      background_.erase(found);
    }
  }
  if (one) {
    one->call.cancel();
    one->thread.join();
    stored = store_.find(owner, id);
    if (!stored) return to_response({.status = 404, .message = stored.error().message});
  }
  return http::Response::json(200, stored->response);
}

}  // namespace capstan::gateway::openai

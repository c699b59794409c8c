#include "engine/server/tokenize.h"

#include "engine/server/answer.h"
#include "engine/server/chat_answer.h"
#include "engine/server/field_reader.h"
#include "engine/server/openai_request.h"

namespace capstan::engine {
namespace {

std::optional<ApiError> check_model(FieldReader& body, const ServedModel& model, const std::optional<ApiError>& error) {
  const auto name = body.string("model");
  if (error) return error;
  if (name && *name != model.name) return ApiError::model_not_found(*name);
  return std::nullopt;
}

// The conversation as a chat request of this model, so that it is checked and rendered as one.
std::expected<std::vector<TokenId>, ApiError> chat_tokens(const ServedModel& model, Json body) {
  body["model"] = model.name;
  const auto request = parse_chat_request(body.dump());
  if (!request) return std::unexpected(request.error());
  return render_chat(model, *request);
}

}  // namespace

http::Response tokenize(const ServedModel& model, std::string_view text) {
  const auto json = Json::parse(text);
  if (!json || !json->is_object())
    return error_response(ApiError::bad_value("", "We could not parse the JSON body of your request: expected an object."));
  std::optional<ApiError> error;
  FieldReader body(*json, "", error);
  if (const auto wrong = check_model(body, model, error)) return error_response(*wrong);
  const bool with_text = body.boolean("return_token_strs").value_or(false);
  std::vector<TokenId> tokens;
  if (json->contains("messages")) {
    auto rendered = chat_tokens(model, *json);
    if (!rendered) return error_response(rendered.error());
    tokens = *std::move(rendered);
  } else {
    tokens = model.tokenizer.encode_with_specials(body.required_string("prompt"));
  }
  if (error) return error_response(*error);
  Json::Array ids, strings;
  for (const TokenId token : tokens) {
    ids.emplace_back(token);
    if (with_text) strings.emplace_back(model.tokenizer.bytes(token));
  }
  return http::Response::json(200, Json::object({{"count", tokens.size()},
                                                 {"max_model_len", model.context},
                                                 {"tokens", std::move(ids)},
                                                 {"token_strs", with_text ? Json(std::move(strings)) : Json()}}));
}

http::Response detokenize(const ServedModel& model, std::string_view text) {
  const auto json = Json::parse(text);
  if (!json || !json->is_object())
    return error_response(ApiError::bad_value("", "We could not parse the JSON body of your request: expected an object."));
  std::optional<ApiError> error;
  FieldReader body(*json, "", error);
  if (const auto wrong = check_model(body, model, error)) return error_response(*wrong);
  const Json* list = body.array("tokens", static_cast<std::size_t>(model.context));
  if (list == nullptr && !error) error = ApiError::missing("tokens");
  if (error) return error_response(*error);
  std::vector<TokenId> tokens;
  for (const Json& item : list->items()) {
    if (!item.is_int() || item.as_int() < 0 || item.as_int() >= model.vocabulary)
      return error_response(ApiError::bad_value(
          "tokens", fmt::format("Invalid 'tokens': {} is no token id below {}.", item.dump(), model.vocabulary)));
    tokens.push_back(static_cast<TokenId>(item.as_int()));
  }
  return http::Response::json(200, Json::object({{"prompt", model.tokenizer.decode(tokens)}}));
}

}  // namespace capstan::engine

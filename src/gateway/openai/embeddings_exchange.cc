#include "gateway/openai/embeddings_exchange.h"

#include <bit>
#include <cstring>

#include "base/base64.h"
#include "gateway/openai/responses_checks.h"

namespace capstan::gateway::openai {
namespace {

static_assert(std::endian::native == std::endian::little);  // as the wire has it

std::string base64_of(const Json::Array& numbers) {
  std::string bytes(numbers.size() * sizeof(float), '\0');
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const float value = numbers[i].is_number() ? static_cast<float>(numbers[i].as_double()) : 0;
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  }
  return base64_encode(bytes);
}

Json::Array numbers_of(std::string_view bytes) {
  Json::Array numbers;
  for (std::size_t at = 0; at + sizeof(float) <= bytes.size(); at += sizeof(float)) {
    float value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    numbers.emplace_back(static_cast<double>(value));
  }
  return numbers;
}

// What is wrong with a request: types, and input that has nothing in it.
std::expected<void, ApiError> check_embeddings(const Json& body) {
  for (const std::string_view key : {"model", "input"}) {
    if (given(body, key) == nullptr) return missing(std::string(key));
  }
  for (const std::string_view key : {"model", "user", "encoding_format"}) {
    const Json* value = given(body, key);
    if (value != nullptr && !value->is_string()) return wrong_type(std::string(key), "a string", *value);
  }
  const Json& input = *body.find("input");
  if (!input.is_string() && !input.is_array())
    return wrong_type("input", "one of a string, array of strings, array of integers, or array of integer arrays", input);
  if (input.is_array() && input.size() == 0)
    return wrong("input", "Invalid 'input': an empty array; give at least one text.", "empty_array");
  if (input == Json("")) return wrong("input", "Invalid 'input': input cannot be an empty string.");
  const Json* dimensions = given(body, "dimensions");
  if (dimensions == nullptr) return {};
  if (!dimensions->is_int()) return wrong_type("dimensions", "an integer", *dimensions);
  if (dimensions->as_int() < 1)
    return wrong("dimensions", "Invalid 'dimensions': integer below minimum value. Expected a value >= 1.",
                 "integer_below_min_value");
  return {};
}

}  // namespace

bool encode_embeddings(Json& answer, bool base64) {
  Json* data = answer.find("data");
  if (data == nullptr || !data->is_array()) return false;
  for (Json& item : data->items()) {
    Json* embedding = item.find("embedding");
    if (embedding == nullptr) return false;
    if (embedding->is_array() && base64) {
      *embedding = Json(base64_of(embedding->items()));
    } else if (embedding->is_string() && !base64) {
      const auto bytes = base64_decode(embedding->as_string());
      if (!bytes) return false;
      *embedding = Json(numbers_of(*bytes));
    } else if (!embedding->is_array() && !embedding->is_string()) {
      return false;
    }
  }
  return true;
}

std::expected<UpstreamCall, http::Response> EmbeddingsExchange::begin(http::Request& request, const Caller&) {
  const auto refuse = [](std::string param, std::string message) {
    return std::unexpected(
        to_response({.message = std::move(message), .param = std::move(param), .code = "invalid_value"}));
  };
  const auto body = Json::parse(request.body);
  if (!body || !body->is_object()) return refuse("", "the body must be a JSON object");
  if (const auto checked = check_embeddings(*body); !checked) return std::unexpected(to_response(checked.error()));
  model_ = *body->get_string("model");
  const std::string format = body->get_string("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    return refuse("encoding_format",
                  fmt::format("'encoding_format' must be float or base64, not '{}'", format));
  base64_ = format == "base64";
  return UpstreamCall{.model = model_,
                      .target = "/v1/embeddings",
                      .body = std::move(request.body),
                      .completion_tokens_max = 1};
}

void EmbeddingsExchange::on_answer(http::Response answer, const Usage*, Reply& reply) {
  if (answer.status == 404 || answer.status == 405 || answer.status == 501)
    return reply.respond(to_response({.message = fmt::format("the model '{}' gives no embeddings", model_),
                                      .param = "model",
                                      .code = "unsupported_model"}));
  if (answer.status != 200) return reply.respond(std::move(answer));
  auto body = Json::parse(answer.body);
  if (!body || !encode_embeddings(*body, base64_))
    return reply.respond(to_response(no_answer("the replica's answer holds no embeddings")));
  reply.respond(http::Response::json(200, *body));
}

}  // namespace capstan::gateway::openai

#include "gateway/bedrock/bedrock_error.h"

#include <algorithm>
#include <array>

#include "base/file.h"

namespace capstan::gateway::bedrock {
namespace {

struct StatusType {
  int status;
  std::string_view type;
};
// What an upstream's status means to a client of Bedrock. 422 is a request that the model cannot take.
constexpr std::array kTypes = {
    StatusType{400, "ValidationException"},        StatusType{401, "UnrecognizedClientException"},
    StatusType{403, "AccessDeniedException"},      StatusType{404, "ResourceNotFoundException"},
    StatusType{408, "ModelTimeoutException"},      StatusType{424, "ModelErrorException"},
    StatusType{429, "ThrottlingException"},        StatusType{500, "InternalServerException"},
    StatusType{503, "ServiceUnavailableException"}};

// The exceptions that the unions of converse-stream and invoke-with-response-stream have.
constexpr std::array<std::string_view, 6> kStreamTypes = {
    "InternalServerException", "ModelStreamErrorException",   "ValidationException",
    "ThrottlingException",     "ServiceUnavailableException", "ModelTimeoutException"};

std::string lower_camel(std::string_view name) {
  std::string out(name);
  if (!out.empty() && out[0] >= 'A' && out[0] <= 'Z') out[0] = static_cast<char>(out[0] - 'A' + 'a');
  return out;
}

}  // namespace

BedrockError from_openai(const OpenAiError& error) {
  if (error.code.ends_with("Exception")) return {error.status, error.code, error.message};
  if (error.code == "unknown_url" || error.code == "method_not_allowed")
    return {error.status, "UnknownOperationException", error.message};
  if (error.status == 415) return {415, "UnsupportedMediaTypeException", error.message};
  if (error.code == "model_not_ready") return {503, "ServiceUnavailableException", error.message};
  if (error.code == "replica_lost") return {424, "ModelErrorException", error.message};
  if (error.status == 401) return {403, "UnrecognizedClientException", error.message};
  if (error.code == "insufficient_quota") return {400, "ServiceQuotaExceededException", error.message};
  const auto found = std::ranges::find(kTypes, error.status, &StatusType::status);
  if (found != kTypes.end()) return {found->status, std::string(found->type), error.message};
  if (error.status >= 500) return {500, "InternalServerException", error.message};
  return {400, "ValidationException", error.message};
}

BedrockError from_upstream(int status, std::string_view body) {
  OpenAiError error{.status = status, .message = fmt::format("the model's server answered {}", status)};
  if (const auto json = Json::parse(body); json && json->is_object()) {
    const Json* inner = json->find("error");
    const Json& fields = inner != nullptr && inner->is_object() ? *inner : *json;
    if (auto message = fields.get_string("message")) error.message = *std::move(message);
    error.code = fields.get_string("code").value_or("");
  }
  return from_openai(error);
}

http::Response to_response(const BedrockError& error, std::string_view request_id) {
  http::Response response = http::Response::json(error.status, Json::object({{"message", error.message}}));
  response.headers.set("x-amzn-errortype", error.type);
  response.headers.set("x-amzn-requestid", request_id.empty() ? random_hex(16) : std::string(request_id));
  if (error.status == 429 || error.status == 503) response.headers.set("retry-after", "1");
  return response;
}

std::string stream_member(const BedrockError& error) {
  const bool known = std::ranges::find(kStreamTypes, error.type) != kStreamTypes.end();
  return lower_camel(known ? std::string_view(error.type) : "InternalServerException");
}

}  // namespace capstan::gateway::bedrock

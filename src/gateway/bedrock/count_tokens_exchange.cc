#include "gateway/bedrock/count_tokens_exchange.h"

#include "base/base64.h"
#include "gateway/bedrock/converse_request.h"
#include "gateway/bedrock/invoke.h"

namespace capstan::gateway::bedrock {
namespace {

// {"input": {"converse": {…}}} or {"input": {"invokeModel": {"body": base64}}} as a chat body.
Result<Json> chat_of_count(const std::string& model, const std::string& path_name, std::string_view text) {
  const auto body = Json::parse(text);
  const Json* input = body && body->is_object() ? body->find("input") : nullptr;
  if (input == nullptr || !input->is_object() || input->size() != 1)
    return fail(Code::kInvalid, "input must be an object with converse or invokeModel");
  if (const Json* converse = input->find("converse")) {
    CAPSTAN_TRY(ConverseCall call, chat_of_converse(model, converse->dump(), false));
    return std::move(call.chat);
  }
  const Json* invoke = input->find("invokeModel");
  const auto bytes = invoke == nullptr ? std::nullopt : invoke->get_string("body");
  const auto decoded = bytes ? base64_decode(*bytes) : std::nullopt;
  if (!decoded) return fail(Code::kInvalid, "input.invokeModel.body must be the body in base64");
  return chat_of_invoke(model, path_name, *decoded, false);
}

}  // namespace

std::expected<UpstreamCall, http::Response> CountTokensExchange::begin(http::Request& request,
                                                                       const Caller&) {
  auto model = model_of(request);
  if (!model) return std::unexpected(std::move(model.error()));
  auto chat = chat_of_count(*model, request.param("model"), request.body);
  if (!chat) return invalid(chat.error());
  chat->erase("max_tokens");
  chat->erase("response_format");  // one token would not satisfy it
  chat->erase("n");
  (*chat)["max_completion_tokens"] = 1;
  return upstream(*std::move(model), *chat);
}

void CountTokensExchange::on_answer(http::Response answer, const Usage* usage, Reply& reply) {
  if (answer.status != 200) return reply.respond(refusal(from_upstream(answer.status, answer.body)));
  if (usage == nullptr)
    return reply.respond(refusal({424, "ModelErrorException", "the model's server does not tell its usage"}));
  reply.respond(json(Json::object({{"inputTokens", usage->prompt_tokens}}), reply));
}

// A server that streams though it was not asked to.
void CountTokensExchange::on_stream_begin(Reply& reply) {
  reply.respond(refusal(
      {424, "ModelErrorException", "the model's server streamed an answer that was not to be streamed"}));
}

}  // namespace capstan::gateway::bedrock

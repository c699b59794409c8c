#include "gateway/openai/input_tokens_exchange.h"

#include "gateway/openai/responses_error.h"

namespace capstan::gateway::openai {

std::expected<UpstreamCall, http::Response> InputTokensExchange::begin(http::Request& request, const Caller& caller) {
  auto prepared = state_.prepare(request.body, owner_of(caller));
  if (!prepared) return std::unexpected(to_response(prepared.error()));
  Json& chat = prepared->chat;
  for (const std::string_view key : {"stream", "stream_options", "response_format", "logprobs", "top_logprobs"}) chat.erase(key);
  if (chat.get_string("tool_choice") != "none") chat.erase("tool_choice");  // one token makes no call
  chat["max_completion_tokens"] = 1;
  return UpstreamCall{.model = prepared->call.model, .body = chat.dump(), .completion_tokens_max = 1};
}

void InputTokensExchange::on_answer(http::Response answer, const Usage* usage, Reply& reply) {
  if (answer.status != 200) return reply.respond(in_responses_terms(std::move(answer)));
  if (usage == nullptr) return reply.respond(to_response(no_answer("the replica does not tell its usage")));
  reply.respond(http::Response::json(
      200, Json::object({{"object", "response.input_tokens"}, {"input_tokens", usage->prompt_tokens}})));
}

}  // namespace capstan::gateway::openai

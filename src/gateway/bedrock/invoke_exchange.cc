#include "gateway/bedrock/invoke_exchange.h"

#include "gateway/bedrock/event_stream.h"
#include "gateway/openai/chat_delta.h"

namespace capstan::gateway::bedrock {

std::expected<UpstreamCall, http::Response> InvokeExchange::begin(http::Request& request, const Caller&) {
  auto model = model_of(request);
  if (!model) return std::unexpected(std::move(model.error()));
  auto chat = chat_of_invoke(*model, request.param("model"), request.body, stream_);
  if (!chat) return invalid(chat.error());
  return upstream(*std::move(model), *chat);
}

void InvokeExchange::on_answer(http::Response answer, const Usage* usage, Reply& reply) {
  if (answer.status != 200) return reply.respond(refusal(from_upstream(answer.status, answer.body)));
  auto completion = Json::parse(answer.body);
  if (!completion)
    return reply.respond(refusal({424, "ModelErrorException", "the model's server answered no JSON"}));
  http::Response response = json(invoke_answer(*std::move(completion)), reply);
  response.headers.set("x-amzn-bedrock-invocation-latency", std::to_string(latency_ms()));
  if (usage != nullptr) {
    response.headers.set("x-amzn-bedrock-input-token-count", std::to_string(usage->prompt_tokens));
    response.headers.set("x-amzn-bedrock-output-token-count", std::to_string(usage->completion_tokens));
  }
  reply.respond(std::move(response));
}

void InvokeExchange::on_stream_begin(Reply& reply) {
  first_byte_ms_ = latency_ms();
  reply.start(200, {{"content-type", "application/vnd.amazon.eventstream"},
                    {"x-amzn-bedrock-content-type", "application/json"},
                    {"x-amzn-requestid", reply.request_id()}});
}

void InvokeExchange::send_kept(Reply& reply) {
  if (!kept_.is_null()) reply.write(encode_event("chunk", chunk_payload(kept_)));
  kept_ = {};
}

void InvokeExchange::on_event(const StreamEvent& event, Reply& reply) {
  if (event.data.empty() || event.data == "[DONE]" || failed_) return;
  if (const auto delta = openai::read_chat_event(event.data); !delta) return on_break(delta.error(), reply);
  Json chunk = chunks_.push(*Json::parse(event.data));
  if (chunk.is_null()) return;
  send_kept(reply);
  kept_ = std::move(chunk);
  if (!chunks_.ended()) send_kept(reply);
}

void InvokeExchange::on_stream_end(const Usage&, Reply& reply) {
  if (!failed_ && !chunks_.ended())
    on_break(
        {.status = 502, .message = "the replica ended its answer without saying why", .code = "replica_lost"},
        reply);
  if (failed_) return;
  kept_["amazon-bedrock-invocationMetrics"] = chunks_.metrics(latency_ms(), first_byte_ms_);
  send_kept(reply);
  reply.finish();
}

void InvokeExchange::on_break(const ApiError& error, Reply& reply) {
  const bool already = std::exchange(failed_, true);
  const BedrockError out = error.code == "replica_lost"
                               ? BedrockError{424, "ModelStreamErrorException", error.message}
                               : from_openai(error);
  if (already) return;
  send_kept(reply);
  reply.write(encode_exception(stream_member(out), out.message));
  reply.finish();
}

}  // namespace capstan::gateway::bedrock

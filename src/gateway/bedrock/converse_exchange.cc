#include "gateway/bedrock/converse_exchange.h"

#include "gateway/bedrock/event_stream.h"

namespace capstan::gateway::bedrock {

std::expected<UpstreamCall, http::Response> ConverseExchange::begin(http::Request& request, const Caller&) {
  auto model = model_of(request);
  if (!model) return std::unexpected(std::move(model.error()));
  auto call = chat_of_converse(*model, request.body, stream_);
  if (!call) return invalid(call.error());
  UpstreamCall out = upstream(*std::move(model), call->chat);
  call->chat = {};
  answer_.emplace(*std::move(call));
  return out;
}

void ConverseExchange::on_answer(http::Response answer, const Usage*, Reply& reply) {
  if (answer.status != 200) return reply.respond(refusal(from_upstream(answer.status, answer.body)));
  const auto delta = openai::read_chat_completion(answer.body);
  if (!delta) return reply.respond(error(delta.error()));
  answer_->push(*delta);
  reply.respond(json(answer_->whole(latency_ms(), *Json::parse(answer.body)), reply));
}

void ConverseExchange::send(const std::vector<ConverseEvent>& events, Reply& reply) {
  for (const ConverseEvent& event : events) reply.write(encode_event(event.type, event.payload.dump()));
}

void ConverseExchange::on_stream_begin(Reply& reply) { start_events(reply); }

void ConverseExchange::on_event(const StreamEvent& event, Reply& reply) {
  if (event.data.empty() || failed_) return;
  const auto delta = openai::read_chat_event(event.data);
  if (!delta) return on_break(delta.error(), reply);
  if (!delta->done) send(answer_->push(*delta), reply);
}

void ConverseExchange::on_stream_end(const Usage&, Reply& reply) {
  if (!failed_ && !answer_->ended())
    on_break(
        {.status = 502, .message = "the replica ended its answer without saying why", .code = "replica_lost"},
        reply);
  if (failed_) return;
  send(answer_->finish(latency_ms()), reply);
  reply.finish();
}

void ConverseExchange::on_break(const ApiError& error, Reply& reply) {
  const bool already = std::exchange(failed_, true);
  const BedrockError out = error.code == "replica_lost"
                               ? BedrockError{424, "ModelStreamErrorException", error.message}
                               : from_openai(error);
  if (already) return;
  reply.write(encode_exception(stream_member(out), out.message));
  reply.finish();
}

}  // namespace capstan::gateway::bedrock

#include "gateway/openai/responses_exchange.h"

#include "gateway/openai/responses_error.h"
#include "gateway/openai_error.h"
#include "gateway/request_peek.h"
#include "routing/routing.h"

namespace capstan::gateway::openai {

http::Response ResponsesExchange::error(const ApiError& error) const { return to_response(error); }

std::expected<UpstreamCall, http::Response> ResponsesExchange::begin(http::Request& request,
                                                                     const Caller& caller) {
  if (!answer_) {
    owner_ = owner_of(caller);
    auto prepared = state_.prepare(request.body, owner_);
    if (!prepared) return std::unexpected(to_response(prepared.error()));
    prepared_ = *std::move(prepared);
    answer_.emplace(state_.answer(prepared_.call));
  }
  UpstreamCall out{.model = prepared_.call.model, .body = prepared_.chat.dump()};
  if (const auto peek = peek_request(out.body)) {
    out.completion_tokens_max = peek->completion_tokens_max;
    out.tier = peek->tier;
    if (!peek->cache_key.empty()) out.affinity_key = routing::hash_text(peek->cache_key);
  }
  return out;
}

void ResponsesExchange::keep() {
  state_.keep(prepared_.call, owner_, answer_->response());
}

void ResponsesExchange::on_answer(http::Response answer, const Usage*, Reply& reply) {
  if (answer.status != 200) return reply.respond(in_responses_terms(std::move(answer)));
  const auto delta = read_chat_completion(answer.body);
  if (!delta) return reply.respond(to_response(delta.error()));
  answer_->push(*delta);
  answer_->finish();
  keep();
  reply.respond(http::Response::json(200, answer_->response()));
}

void ResponsesExchange::send(const ResponsesAnswer::Events& events, Reply& reply) {
  for (const Json& event : events) reply.write(http::sse_event(event.dump(), *event.get_string("type")));
}

void ResponsesExchange::on_stream_begin(Reply& reply) {
  reply.start(200, {{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}});
  send(answer_->begin(), reply);
}

void ResponsesExchange::on_event(const StreamEvent& event, Reply& reply) {
  if (event.data.empty() || answer_->status() != "in_progress") return;
  const auto delta = read_chat_event(event.data);
  if (!delta) {
    send(answer_->fail(delta.error()), reply);
  } else if (!delta->done) {
    send(answer_->push(*delta), reply);
  }
}

void ResponsesExchange::on_stream_end(const Usage&, Reply& reply) {
  if (answer_->status() == "in_progress" && !answer_->ended())
    send(answer_->fail({.status = 502, .message = "the replica ended its answer without saying why"}), reply);
  if (answer_->status() == "in_progress") {
    const auto events = answer_->finish();
    keep();  // before the client knows that it is complete
    send(events, reply);
  } else {
    keep();
  }
  reply.finish();
}

void ResponsesExchange::on_break(const ApiError& error, Reply& reply) {
  if (answer_->status() == "in_progress") send(answer_->fail(error), reply);
  keep();
  reply.finish();
}

}  // namespace capstan::gateway::openai

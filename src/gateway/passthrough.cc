#include "gateway/passthrough.h"

#include "gateway/openai_error.h"
#include "gateway/request_peek.h"
#include "routing/routing.h"

namespace capstan::gateway {

std::expected<UpstreamCall, http::Response> PassThrough::begin(http::Request& request, const Caller&) {
  UpstreamCall call{.target = target_, .body = std::move(request.body)};
  auto peek = peek_request(call.body);
  if (!peek) return std::unexpected(to_response(peek.error()));
  usage_wanted_ = peek->include_usage;
  store_wanted_ = peek->store;
  if (peek->stream) ask_for_usage(call.body, *peek);
  call.model = std::move(peek->model);
  call.completion_tokens_max = peek->completion_tokens_max;
  call.tier = peek->tier;
  if (!peek->cache_key.empty()) call.affinity_key = routing::hash_text(peek->cache_key);
  return call;
}

http::Response PassThrough::error(const ApiError& error) const { return to_response(error); }

void PassThrough::on_answer(http::Response answer, const Usage*, Reply& reply) { reply.respond(std::move(answer)); }

void PassThrough::on_stream_begin(Reply& reply) {
  reply.start(200, {{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}});
}

void PassThrough::on_event(const StreamEvent& event, Reply& reply) {
  if (usage_wanted_) return reply.write(event.raw);
  // What the client did not ask for: the last chunk, which holds nothing but usage, and "usage":null before it.
  if (event.usage != nullptr && event.data.contains(R"("choices":[])")) return;
  if (event.no_usage.empty()) return reply.write(event.raw);
  const auto at = static_cast<std::size_t>(event.no_usage.data() - event.raw.data());
  without_.assign(event.raw.substr(0, at)).append(event.raw.substr(at + event.no_usage.size()));
  reply.write(without_);
}

void PassThrough::on_stream_end(const Usage&, Reply& reply) { reply.finish(); }

void PassThrough::on_break(const ApiError& error, Reply& reply) {
  reply.write(http::sse_event(to_json(error).dump()));
  reply.finish();
}

}  // namespace capstan::gateway

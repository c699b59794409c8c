#include "gateway/bedrock/invoke_exchange.h"

#include <algorithm>

#include "gateway/bedrock/event_stream.h"
#include "gateway/openai/chat_delta.h"

namespace capstan::gateway::bedrock {
namespace {

constexpr std::string_view kTierHeader = "x-amzn-bedrock-service-tier";
constexpr std::string_view kLatencyHeader = "x-amzn-bedrock-performanceconfig-latency";

}  // namespace

std::expected<UpstreamCall, http::Response> InvokeExchange::begin(http::Request& request, const Caller&) {
  auto model = model_of(request);
  if (!model) return std::unexpected(std::move(model.error()));
  auto chat = chat_of_invoke(*model, request.param("model"), request.body, stream_);
  if (!chat) return invalid(chat.error());
  if (const auto refused = read_headers(request, *chat)) return std::unexpected(refusal(*refused));
  return upstream(*std::move(model), *chat);
}

std::optional<BedrockError> InvokeExchange::read_headers(const http::Request& request, Json& chat) {
  const auto refuse = [](std::string message) { return BedrockError{400, "ValidationException", std::move(message)}; };
  const auto is_one_of = [](const std::string& value, std::initializer_list<std::string_view> values) {
    return value.empty() || std::ranges::find(values, value) != values.end();
  };
  tier_ = request.headers.get(kTierHeader);
  if (!is_one_of(tier_, {"priority", "default", "flex", "reserved"}))
    return refuse(fmt::format("{} must be priority, default, flex or reserved, not '{}'", kTierHeader, tier_));
  if (!tier_.empty()) chat["service_tier"] = tier_ == "reserved" ? "default" : tier_;
  latency_ = request.headers.get(kLatencyHeader);
  if (!is_one_of(latency_, {"standard", "optimized"}))
    return refuse(fmt::format("{} must be standard or optimized, not '{}'", kLatencyHeader, latency_));
  if (!request.headers.get("x-amzn-bedrock-guardrailidentifier").empty())
    return refuse("there are no guardrails on this server; leave x-amzn-bedrock-guardrailidentifier out");
  return std::nullopt;
}

void InvokeExchange::repeat(http::Headers& headers) const {
  if (!tier_.empty()) headers.set(kTierHeader, tier_);
  if (!latency_.empty()) headers.set(kLatencyHeader, latency_);
}

void InvokeExchange::on_answer(http::Response answer, const Usage* usage, Reply& reply) {
  if (answer.status != 200) return reply.respond(refusal(from_upstream(answer.status, answer.body)));
  auto completion = Json::parse(answer.body);
  if (!completion)
    return reply.respond(refusal({424, "ModelErrorException", "the model's server answered no JSON"}));
  http::Response response = json(invoke_answer(*std::move(completion)), reply);
  repeat(response.headers);
  response.headers.set("x-amzn-bedrock-invocation-latency", std::to_string(latency_ms()));
  if (usage != nullptr) {
    response.headers.set("x-amzn-bedrock-input-token-count", std::to_string(usage->prompt_tokens));
    response.headers.set("x-amzn-bedrock-output-token-count", std::to_string(usage->completion_tokens));
  }
  reply.respond(std::move(response));
}

void InvokeExchange::on_stream_begin(Reply& reply) {
  first_byte_ms_ = latency_ms();
  http::Headers headers = {{"content-type", "application/vnd.amazon.eventstream"},
                           {"x-amzn-bedrock-content-type", "application/json"},
                           {"x-amzn-requestid", reply.request_id()}};
  repeat(headers);
  reply.start(200, std::move(headers));
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

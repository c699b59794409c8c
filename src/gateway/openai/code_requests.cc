#include "gateway/openai/code_requests.h"

#include <algorithm>

#include "base/file.h"

namespace capstan::gateway::openai {
namespace {

ApiError error_of(const Error& error) {
  if (error.code == Code::kUnsupported)
    return {.message = fmt::format("code_interpreter is not available: {}", error.message),
            .param = "tools",
            .code = "unsupported_parameter"};
  if (error.code == Code::kNotFound) return {.status = 404, .message = error.message, .param = "tools"};
  return {.status = error.code == Code::kExhausted ? 429 : 503,
          .message = error.message,
          .type = "server_error",
          .code = "container_unavailable"};
}

// The ids of the containers that these items ran in, the last first.
void add_containers(const Json::Array& items, std::vector<std::string>& out) {
  for (auto item = items.rbegin(); item != items.rend(); ++item) {
    const auto id = item->get_string("container_id");
    if (id && is_container_id(*id) && std::ranges::find(out, *id) == out.end()) out.push_back(*id);
  }
}

}  // namespace

bool CodeRequests::takes(const http::Request& request) { return asks_for_code(request.body); }

std::expected<void, ApiError> CodeRequests::begin(const http::Request& request, const CallerPtr& caller,
                                                  const http::ResponseWriterPtr& writer) {
  if (runner_ == nullptr) return std::unexpected(error_of({Code::kUnsupported, "this gateway has no sandboxes", {}}));
  auto call = parse_responses_request(request.body);
  if (!call) return std::unexpected(call.error());
  if (const auto able = runner_->check(); !able) return std::unexpected(error_of(able.error()));
  const std::string owner = owner_of(*caller);
  const auto previous = state_.history(*call, owner);
  if (!previous) return std::unexpected(previous.error());
  if (auto given = give_container(*call, *previous, *caller); !given) return given;
  auto chat = state_.chat(*call, owner, *previous);
  if (!chat) return std::unexpected(chat.error());
  CodeLoopParts parts{.gateway = gateway_, .runner = *runner_};
  if (call->store || !call->conversation.empty()) {
    parts.keep = [&state = state_, call = *call, owner](const Json& response) { state.keep(call, owner, response); };
  }
  if (call->background) {
    return background_.start(request, *call, caller, writer, [&](ResponsesAnswer answer, const http::ResponseWriterPtr& run) {
      return CodeLoop::start(std::move(parts), {*call, *std::move(chat), std::move(answer), caller}, run, request);
    });
  }
  ResponsesAnswer answer = state_.answer(*call);
  const auto started = CodeLoop::start(
      std::move(parts),
      {.call = *call, .chat = *std::move(chat), .answer = std::move(answer), .caller = caller}, writer, request);
  if (!started) return std::unexpected(error_of(started.error()));
  return {};
}

std::expected<void, ApiError> CodeRequests::give_container(ResponsesCall& call, const Json::Array& previous,
                                                           const Caller& caller) {
  if (!call.container.empty()) {
    const auto found = runner_->find(caller, call.container);
    if (!found) return std::unexpected(error_of(found.error()));
    return {};
  }
  std::vector<std::string> known;
  add_containers(call.input, known);
  add_containers(previous, known);
  if (!known.empty() && runner_->find(caller, known.front())) {
    call.container = known.front();
  } else {
    call.container = "cntr_" + random_hex(24);
  }
  return {};
}

}  // namespace capstan::gateway::openai

#include "gateway/openai/code_requests.h"

#include <algorithm>

#include "base/file.h"
#include "gateway/openai/containers.h"

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
  auto files = give_files(*call, owner);
  if (!files) return std::unexpected(files.error());
  auto chat = state_.chat(*call, owner, *previous);
  if (!chat) return std::unexpected(chat.error());
  CodeLoopParts parts{.gateway = gateway_, .runner = *runner_};
  if (call->store || !call->conversation.empty()) {
    parts.keep = [&state = state_, call = *call, owner](const Json& response) { state.keep(call, owner, response); };
  }
  if (call->background) {
    return background_.start(request, *call, caller, writer, [&](ResponsesAnswer answer, const http::ResponseWriterPtr& run) {
      return CodeLoop::start(std::move(parts), {*call, *std::move(chat), std::move(answer), caller, *std::move(files)}, run,
                             request);
    });
  }
  ResponsesAnswer answer = state_.answer(*call);
  const auto started = CodeLoop::start(
      std::move(parts),
      {.call = *call,
       .chat = *std::move(chat),
       .answer = std::move(answer),
       .caller = caller,
       .files = *std::move(files)},
      writer, request);
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

std::expected<std::vector<CodeRunner::File>, ApiError> CodeRequests::give_files(ResponsesCall& call,
                                                                                const std::string& owner) const {
  std::vector<CodeRunner::File> files;
  std::string names;
  for (const std::string& id : call.container_files) {
    const auto about = files_.find(owner, id);
    auto content = about ? files_.content(owner, id) : std::unexpected(about.error());
    if (!content) return std::unexpected(error_of(content.error()));
    std::string name = plain_file_name(about->get_string("filename").value_or(""));
    const auto same = [&](const CodeRunner::File& other) { return other.name == name; };
    if (name.empty() || std::ranges::any_of(files, same)) name = id + "-" + name;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    files.push_back({.id = id, .name = std::move(name), .content = *std::move(content)});
  }
  if (!files.empty()) {
    call.instructions += fmt::format("{}The working directory of the python tool has these files: {}",
                                     call.instructions.empty() ? "" : "\n\n", names);
  }
  return files;
}

}  // namespace capstan::gateway::openai

// chat: a conversation at the terminal with a model that Capstan serves, streamed.
//
// How: the whole history goes with each request; analysis text is shown dimmed and not sent back. With
// --python the model is offered harmony's python tool: its code is shown, runs here in `python3 -I` after a
// yes, and its output goes back.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <iostream>

#include "cli/commands.h"

namespace capstan::cli {
namespace {

constexpr int kToolRoundsMax = 8;  // calls that one answer may make
constexpr std::size_t kToolOutputMax = 16 << 10;

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

struct Reply {
  std::string content;
  std::vector<ToolCall> calls;
  std::string error;
};

bool is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }

void show(std::string_view text, bool dim) {
  if (dim && is_terminal()) {
    fmt::print("\033[2m{}\033[0m", text);
  } else {
    fmt::print("{}", text);
  }
  std::fflush(stdout);
}

void take_call(const Json& delta, Reply& reply) {
  const auto index = static_cast<std::size_t>(delta.get_int("index").value_or(0));
  if (index >= 64) return;
  if (reply.calls.size() <= index) reply.calls.resize(index + 1);
  ToolCall& call = reply.calls[index];
  if (auto id = delta.get_string("id")) call.id = *id;
  if (const Json* function = delta.find("function")) {
    if (auto name = function->get_string("name")) call.name = *name;
    call.arguments += function->get_string("arguments").value_or("");
  }
}

// One chunk of the stream: shows it and adds it to the reply.
void take_chunk(const Json& chunk, bool show_reasoning, bool& in_reasoning, Reply& reply) {
  if (const Json* error = chunk.find("error"))
    reply.error = error->get_string("message").value_or("the server failed");
  const Json* choices = chunk.find("choices");
  if (choices == nullptr || !choices->is_array() || choices->size() == 0) return;
  const Json* delta = choices->items().front().find("delta");
  if (delta == nullptr) return;
  if (const auto reasoning = delta->get_string("reasoning");
      reasoning && show_reasoning && !reasoning->empty()) {
    show(*reasoning, true);
    in_reasoning = true;
  }
  if (const auto content = delta->get_string("content"); content && !content->empty()) {
    if (std::exchange(in_reasoning, false)) fmt::print("\n");
    show(*content, false);
    reply.content += *content;
  }
  if (const Json* calls = delta->find("tool_calls"); calls != nullptr && calls->is_array()) {
    for (const Json& call : calls->items()) take_call(call, reply);
  }
}

Result<Reply> ask(ApiClient& api, const Json& request, bool show_reasoning) {
  Reply reply;
  std::string pending;
  bool in_reasoning = false;
  CAPSTAN_CHECK(api.stream_post("/v1/chat/completions", request.dump(), [&](std::string_view piece) {
    pending += piece;
    for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      const std::string line = pending.substr(0, end);
      pending.erase(0, end + 1);
      if (!line.starts_with("data: {")) continue;
      if (const auto chunk = Json::parse(std::string_view(line).substr(6)))
        take_chunk(*chunk, show_reasoning, in_reasoning, reply);
    }
    return true;
  }));
  fmt::print("\n");
  if (!reply.error.empty()) return fail(Code::kUnavailable, "{}", reply.error);
  return reply;
}

// Runs code in an isolated interpreter; its output (bounded) is the tool's result.
std::string run_python(const std::string& code) {
  std::array<int, 2> pipe_fds{};
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0) return "error: cannot make a pipe";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDERR_FILENO);
  std::array<const char*, 5> argv{"python3", "-I", "-c", code.c_str(), nullptr};
  pid_t pid = 0;
  const int error =
      ::posix_spawnp(&pid, "python3", &actions, nullptr, const_cast<char* const*>(argv.data()), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe_fds[1]);
  std::string output;
  if (error == 0) {
    char buffer[4096];
    for (ssize_t count; (count = ::read(pipe_fds[0], buffer, sizeof buffer)) > 0;) {
      if (output.size() < kToolOutputMax) output.append(buffer, static_cast<std::size_t>(count));
    }
    ::waitpid(pid, nullptr, 0);
  } else {
    output = "error: python3 is not installed here";
  }
  ::close(pipe_fds[0]);
  while (!output.empty() && output.back() == '\n') output.pop_back();
  return output.substr(0, kToolOutputMax);
}

bool confirm(const std::string& code) {
  fmt::print("the model wants to run this with python3 -I:\n  {}\nrun it? [y/N] ", code);
  std::fflush(stdout);
  std::string answer;
  return std::getline(std::cin, answer) && (answer == "y" || answer == "yes");
}

Json python_tool() {
  return Json::object(
      {{"type", "function"},
       {"function",
        Json::object(
            {{"name", "python"},
             {"description", "runs Python and returns what it prints"},
             {"parameters",
              *Json::parse(
                  R"({"type":"object","properties":{"code":{"type":"string"}},"required":["code"]})")}})}});
}

Json assistant_message(const Reply& reply) {
  Json message = Json::object({{"role", "assistant"}, {"content", reply.content}});
  for (const ToolCall& call : reply.calls) {
    message["tool_calls"].push_back(
        Json::object({{"id", call.id},
                      {"type", "function"},
                      {"function", Json::object({{"name", call.name}, {"arguments", call.arguments}})}}));
  }
  return message;
}

// One turn: the model's answer, with as many tool calls before it as it makes.
Result<void> turn(ApiClient& api, const ChatOptions& options, const std::string& model, Json& messages) {
  for (int round = 0; round < kToolRoundsMax; ++round) {
    Json request = Json::object({{"model", model}, {"stream", true}, {"messages", messages}});
    if (options.python) request["tools"].push_back(python_tool());
    CAPSTAN_TRY(const Reply reply, ask(api, request, !options.no_reasoning));
    messages.push_back(assistant_message(reply));
    if (reply.calls.empty()) return {};
    for (const ToolCall& call : reply.calls) {
      const auto arguments = Json::parse(call.arguments);
      const std::string code = arguments ? arguments->get_string("code").value_or("") : call.arguments;
      const std::string result = confirm(code) ? run_python(code) : "error: the user did not allow this";
      fmt::print("{}\n", result);
      messages.push_back(Json::object(
          {{"role", "tool"}, {"tool_call_id", call.id}, {"name", call.name}, {"content", result}}));
    }
  }
  return fail(Code::kExhausted, "the model made {} calls without an answer", kToolRoundsMax);
}

Result<std::string> choose_model(ApiClient& api, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  CAPSTAN_TRY(const Json models, api.get("/v1/models"));
  const Json* list = models.find("data");
  if (list == nullptr || !list->is_array() || list->size() == 0) {
    return fail(Code::kNotFound, "no model is served; see: capstan get --kind service");
  }
  for (const Json& model : list->items()) {
    if (model.get_string("id") == "abacus") return std::string("abacus");
  }
  return list->items().front().get_string("id").value_or("");
}

}  // namespace

int chat(const Globals& globals, const ChatOptions& options) {
  auto api = ApiClient::connect(globals.connection);
  if (!api) return report(api.error());
  const auto model = choose_model(*api, options.model);
  if (!model) return report(model.error());
  Json messages = Json::array();
  if (!options.message.empty()) {
    messages.push_back(Json::object({{"role", "user"}, {"content", options.message}}));
    const auto result = turn(*api, options, *model, messages);
    return result ? kOk : report(result.error());
  }
  const bool prompt = ::isatty(STDIN_FILENO) == 1;
  if (prompt) fmt::print("chatting with {}; an empty line or Ctrl-D ends\n", *model);
  std::string line;
  for (;;) {
    if (prompt) fmt::print("> ");
    std::fflush(stdout);
    if (!std::getline(std::cin, line) || line.empty()) return kOk;
    messages.push_back(Json::object({{"role", "user"}, {"content", line}}));
    if (const auto result = turn(*api, options, *model, messages); !result) {
      report(result.error());
      messages.items().pop_back();
    }
  }
}

}  // namespace capstan::cli

// ChatChoice makes the pieces; here they become chunks or one message.
#include "engine/server/chat_answer.h"

#include <ctime>

#include "engine/server/chat_choice.h"
#include "engine/server/chat_prompt.h"
#include "harmony/render.h"

namespace capstan::engine {
namespace {

Json tool_call_json(const ToolCallDelta& call) {
  Json json = Json::object({{"index", call.index}});
  if (!call.id.empty()) {
    json["id"] = call.id;
    json["type"] = call.custom ? "custom" : "function";
  }
  Json said = Json::object();
  if (!call.name.empty()) said["name"] = call.name;
  said[call.custom ? kInputArgument : "arguments"] = call.arguments;
  json[call.custom ? "custom" : "function"] = std::move(said);
  return json;
}

// As answers were before `tools`: one call, without an id.
Json function_call_json(const ToolCallDelta& call) {
  Json json = Json::object();
  if (!call.name.empty()) json["name"] = call.name;
  json["arguments"] = call.arguments;
  return json;
}

Json delta_json(const ChatDelta& delta, bool legacy) {
  Json json = Json::object();
  if (!delta.reasoning.empty()) {
    json["reasoning"] = delta.reasoning;
    json["reasoning_content"] = delta.reasoning;
  }
  if (!delta.content.empty()) json["content"] = delta.content;
  for (const ToolCallDelta& call : delta.tool_calls) {
    if (!legacy) json["tool_calls"].push_back(tool_call_json(call));
    if (legacy && call.index == 0) json["function_call"] = function_call_json(call);
  }
  return json;
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

class ChatAnswer : public Answer {
 public:
  ChatAnswer(const Context& context, const ChatRequest& request)
      : Answer(context, request, "chatcmpl-", request.choices), logprobs_(request.logprobs), legacy_(request.legacy_functions) {
    for (int i = 0; i < request.choices; ++i) {
      choices_.emplace_back(
          ChatChoice(context.model.tokenizer, context.model.format, request.stop, request.tools));
    }
  }

 protected:
  void begin_stream() override {
    for (int i = 0; i < static_cast<int>(choices_.size()); ++i) {
      send_delta(i, Json::object({{"role", "assistant"}, {"content", ""}}), nullptr, nullptr);
    }
  }

  bool token(int index, const TokenEvent& event) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    ++choice.tokens;
    const ChatDelta delta = choice.reader.push(event.token);
    if (logprobs_ && choice.reader.last_was_content())
      choice.pending_logprobs.push_back(logprob_json(event.token, event.logprob, &event.top));
    tell(index, delta);
    return choice.reader.stopped();
  }

  void end(int index, bool length) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    tell(index, choice.reader.finish());
    choice.finish_reason = length ? "length" : choice.reader.called_tool() ? calls_reason() : "stop";
    if (choice.reader.stopped()) choice.finish_reason = "stop";
    observe_end(index, choice.finish_reason, choice.tokens);
    if (streaming()) send_delta(index, Json::object(), take_logprobs(choice), choice.finish_reason);
  }

  Json whole() override {
    Json body = head("chat.completion");
    body["choices"] = Json::array();
    for (int i = 0; i < static_cast<int>(choices_.size()); ++i) {
      Choice& choice = choices_[static_cast<std::size_t>(i)];
      Json message = Json::object({{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}});
      if (choice.content.empty() && !choice.tool_calls.empty()) message["content"] = nullptr;
      if (!choice.reasoning.empty()) {
        message["reasoning"] = choice.reasoning;
        message["reasoning_content"] = choice.reasoning;
      }
      if (legacy_ && !choice.tool_calls.empty()) message["function_call"] = function_call_json(choice.tool_calls.front());
      for (const ToolCallDelta& call : choice.tool_calls) {
        if (legacy_) break;
        Json json = tool_call_json(call);
        json.erase("index");
        message["tool_calls"].push_back(std::move(json));
      }
      body["choices"].push_back(Json::object({{"index", i},
                                              {"message", std::move(message)},
                                              {"logprobs", take_logprobs(choice)},
                                              {"finish_reason", choice.finish_reason}}));
    }
    return body;
  }

  int reasoning_tokens() const override {
    int sum = 0;
    for (const Choice& choice : choices_) sum += choice.reader.reasoning_tokens();
    return sum;
  }

 private:
  struct Choice {
    explicit Choice(ChatChoice choice) : reader(std::move(choice)) {}
    ChatChoice reader;
    std::string reasoning = {}, content = {}, finish_reason = {};
    std::vector<ToolCallDelta> tool_calls = {};
    Json::Array pending_logprobs = {};
    int tokens = 0;
  };

  // Sends the piece, or keeps it for the whole message.
  void tell(int index, const ChatDelta& delta) {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    if (delta.empty()) return;
    if (streaming()) {
      send_delta(index, delta_json(delta, legacy_), delta.content.empty() ? Json() : take_logprobs(choice), nullptr);
      return;
    }
    choice.reasoning += delta.reasoning;
    choice.content += delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) {
      if (!call.id.empty()) {
        choice.tool_calls.push_back(call);
      } else {
        choice.tool_calls.back().arguments += call.arguments;
      }
    }
  }

  void send_delta(int index, Json delta, Json logprobs, Json finish_reason) {
    Json chunk = head("chat.completion.chunk");
    chunk["choices"] = Json::array({Json::object({{"index", index},
                                                  {"delta", std::move(delta)},
                                                  {"logprobs", std::move(logprobs)},
                                                  {"finish_reason", std::move(finish_reason)}})});
    send(std::move(chunk));
  }

  // {"content": […]} of the tokens told since the last time; null if none were asked for or came.
  Json take_logprobs(Choice& choice) const {
    if (!logprobs_ || (streaming() && choice.pending_logprobs.empty())) return nullptr;
    return Json::object({{"content", std::exchange(choice.pending_logprobs, {})}, {"refusal", nullptr}});
  }

  Json logprob_json(TokenId token, float logprob, const std::vector<TokenLogprob>* top) const {
    const std::string_view bytes = context_.model.tokenizer.bytes(token);
    Json::Array values;
    for (const char byte : bytes) values.emplace_back(static_cast<int>(static_cast<unsigned char>(byte)));
    Json json = Json::object(
        {{"token", bytes}, {"logprob", static_cast<double>(logprob)}, {"bytes", std::move(values)}});
    if (top != nullptr) {
      json["top_logprobs"] = Json::array();
      for (const TokenLogprob& other : *top)
        json["top_logprobs"].push_back(logprob_json(other.token, other.logprob, nullptr));
    }
    return json;
  }

  std::string_view calls_reason() const { return legacy_ ? "function_call" : "tool_calls"; }

  bool logprobs_;
  bool legacy_;
  std::vector<Choice> choices_;
};

}  // namespace

std::vector<TokenId> render_chat(const ServedModel& model, const ChatRequest& request) {
  return harmony::render_prompt(model.tokenizer, model.format, chat_conversation(request, model.profile, today()));
}

void answer_chat(const Answer::Context& context, const ChatRequest& request) {
  ServedModel& model = context.model;
  const std::vector<TokenId> prompt = render_chat(model, request);
  const long wanted = request.tokens_max.value_or(0);
  std::optional<ApiError> error = context_error(model, prompt, wanted);
  std::vector<std::shared_ptr<TokenConstraint>> constraints;
  for (int i = 0; i < request.choices && is_structured(request) && !error; ++i) {
    auto constraint = model.structured->chat(model, request, tokens_left(model, prompt, wanted));
    if (constraint) {
      constraints.push_back(*std::move(constraint));
    } else {
      error = constraint.error();
    }
  }
  if (error) {
    context.metrics.http_answer(context.path, error->status);
    context.writer->respond(error_response(*error));
    return;
  }
  std::make_shared<ChatAnswer>(context, request)
      ->start({prompt}, static_cast<int>(wanted), request.top_logprobs, request.logprobs,
              std::move(constraints));
}

}  // namespace capstan::engine

// Tokens become text, specials leave no trace in it; stop sequences apply to all of it.
#include "engine/server/completion_answer.h"

#include "engine/server/stop_strings.h"

namespace capstan::engine {
namespace {

class CompletionAnswer : public Answer {
 public:
  CompletionAnswer(const Context& context, const CompletionRequest& request, std::string echo)
      : Answer(context, request, "cmpl-", request.choices), logprobs_(request.logprobs), echo_(std::move(echo)) {
    for (int i = 0; i < request.choices; ++i)
      choices_.emplace_back(context.model.tokenizer, request.stop, echo_);
  }

 protected:
  void begin_stream() override {
    for (int i = 0; !echo_.empty() && i < static_cast<int>(choices_.size()); ++i)
      send_text(i, echo_, nullptr, nullptr);
  }

  bool token(int index, const TokenEvent& event) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    ++choice.tokens;
    if (!context_.model.tokenizer.is_special(event.token)) {
      if (logprobs_) note_logprob(choice, event);
      tell(index, choice.stops.push(choice.decoder.push(event.token)));
    }
    return choice.stops.found();
  }

  void end(int index, bool length) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    std::string rest = choice.stops.push(choice.decoder.finish());
    rest += choice.stops.finish();
    tell(index, rest);
    choice.finish_reason = length ? "length" : "stop";
    observe_end(index, choice.finish_reason, choice.tokens);
    if (streaming()) send_text(index, "", take_logprobs(choice), choice.finish_reason);
  }

  Json whole() override {
    Json body = head("text_completion");
    body["choices"] = Json::array();
    for (int i = 0; i < static_cast<int>(choices_.size()); ++i) {
      Choice& choice = choices_[static_cast<std::size_t>(i)];
      body["choices"].push_back(choice_json(i, choice.text, take_logprobs(choice), choice.finish_reason));
    }
    return body;
  }

 private:
  struct Choice {
    Choice(const harmony::Tokenizer& tokenizer, std::vector<std::string> stop, std::string echo)
        : decoder(tokenizer), stops(std::move(stop)), text(std::move(echo)) {}
    harmony::StreamDecoder decoder;
    StopStrings stops;
    std::string text;
    std::string finish_reason = {};
    int tokens = 0;
    // OpenAI's four lists, of the tokens told since the last chunk.
    Json::Array logprob_tokens = {}, logprobs = {}, tops = {}, offsets = {};
    std::size_t offset = 0;  // of the next token in the text, in bytes
  };

  void note_logprob(Choice& choice, const TokenEvent& event) {
    const std::string_view bytes = context_.model.tokenizer.bytes(event.token);
    choice.logprob_tokens.emplace_back(bytes);
    choice.logprobs.emplace_back(static_cast<double>(event.logprob));
    choice.offsets.emplace_back(choice.offset);
    choice.offset += bytes.size();
    Json top = Json::object();
    for (const TokenLogprob& other : event.top)
      top[context_.model.tokenizer.bytes(other.token)] = static_cast<double>(other.logprob);
    choice.tops.push_back(std::move(top));
  }

  // null if none were asked for, or (in a stream) none came since the last time.
  Json take_logprobs(Choice& choice) const {
    if (!logprobs_ || (streaming() && choice.logprob_tokens.empty())) return nullptr;
    return Json::object({{"tokens", std::exchange(choice.logprob_tokens, {})},
                         {"token_logprobs", std::exchange(choice.logprobs, {})},
                         {"top_logprobs", *logprobs_ > 0 ? Json(std::exchange(choice.tops, {})) : Json()},
                         {"text_offset", std::exchange(choice.offsets, {})}});
  }

  void tell(int index, const std::string& text) {
    if (text.empty()) return;
    if (streaming()) {
      send_text(index, text, take_logprobs(choices_[static_cast<std::size_t>(index)]), nullptr);
    } else {
      choices_[static_cast<std::size_t>(index)].text += text;
    }
  }

  static Json choice_json(int index, const std::string& text, Json logprobs, Json finish_reason) {
    return Json::object({{"index", index},
                         {"text", text},
                         {"logprobs", std::move(logprobs)},
                         {"finish_reason", std::move(finish_reason)}});
  }

  void send_text(int index, const std::string& text, Json logprobs, Json finish_reason) {
    Json chunk = head("text_completion");
    chunk["choices"] = Json::array({choice_json(index, text, std::move(logprobs), std::move(finish_reason))});
    send(std::move(chunk));
  }

  std::optional<int> logprobs_;
  std::string echo_;
  std::vector<Choice> choices_;
};

}  // namespace

void answer_completion(const Answer::Context& context, const CompletionRequest& request) {
  const ServedModel& model = context.model;
  std::optional<ApiError> error;
  std::vector<TokenId> prompt;
  for (const std::int64_t token : request.prompt_tokens) {
    if (token < 0 || token >= model.vocabulary) {
      error = ApiError::bad_value(
          "prompt", fmt::format("Invalid 'prompt': token {} is outside the vocabulary of {}.", token,
                                model.vocabulary));
      break;
    }
    prompt.push_back(static_cast<TokenId>(token));
  }
  if (prompt.empty() && !error) prompt = model.tokenizer.encode(request.prompt);
  if (!error) error = context_error(model, prompt, request.tokens_max.value_or(0));
  std::vector<std::shared_ptr<TokenConstraint>> constraints;
  for (int i = 0; i < request.choices && request.form.kind != AnswerForm::Kind::kText && !error; ++i) {
    auto constraint = model.structured->completion(
        model, request, tokens_left(model, prompt, request.tokens_max.value_or(0)));
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
  const std::string echo = request.echo ? model.tokenizer.decode(prompt) : std::string();
  std::make_shared<CompletionAnswer>(context, request, echo)
      ->start(prompt, static_cast<int>(request.tokens_max.value_or(0)), request.logprobs.value_or(0),
              request.logprobs.has_value(), std::move(constraints));
}

}  // namespace capstan::engine

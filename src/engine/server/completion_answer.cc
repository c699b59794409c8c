// Tokens become text, specials leave no trace in it; stop sequences apply to all of it. An echoed prompt goes before it, with its
// tokens' log-probabilities if those are wanted: they come before the first token. max_tokens 0: one is made and not told.
#include "engine/server/completion_answer.h"

#include <algorithm>

#include "engine/server/stop_strings.h"

namespace capstan::engine {
namespace {

class CompletionAnswer : public Answer {
 public:
  struct Echo {
    std::string text = {};
    TokenId first = -1;  // of the prompt; -1: it is not echoed
  };
  // Of each prompt.
  CompletionAnswer(const Context& context, const CompletionRequest& request, const std::vector<Echo>& echoes)
      : Answer(context, request, "cmpl-", request.best_of * static_cast<int>(echoes.size())),
        logprobs_(request.logprobs),
        echo_(request.echo),
        silent_(request.tokens_max == 0),
        best_of_(static_cast<std::size_t>(request.best_of)),
        told_(static_cast<std::size_t>(request.choices)) {
    for (const Echo& echo : echoes) {
      for (int i = 0; i < request.best_of; ++i) {
        choices_.emplace_back(context.model.tokenizer, request.stop, echo.text);
        if (scores_prompt() && echo.first >= 0) note(choices_.back(), echo.first, nullptr);
      }
    }
  }

 protected:
  bool scores_prompt() const override { return echo_ && logprobs_; }
  void prompt_token(int index, const TokenEvent& event) override {
    note(choices_[static_cast<std::size_t>(index)], event.token, &event);
  }

  bool token(int index, const TokenEvent& event) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    if (streaming() && !choice.text.empty()) {
      const std::string echo = std::exchange(choice.text, {});
      send_text(index, echo, take_logprobs(choice), nullptr);
    }
    if (silent_) return true;
    ++choice.tokens;
    choice.logprob_sum += static_cast<double>(event.logprob);
    if (!context_.model.tokenizer.is_special(event.token)) {
      if (logprobs_) note(choice, event.token, &event);
      tell(index, choice.stops.push(choice.decoder.push(event.token)));
    }
    return choice.stops.found();
  }

  void end(int index, bool length) override {
    Choice& choice = choices_[static_cast<std::size_t>(index)];
    std::string rest = choice.stops.push(choice.decoder.finish());
    rest += choice.stops.finish();
    tell(index, rest);
    choice.finish_reason = length || silent_ ? "length" : "stop";
    observe_end(index, choice.finish_reason, choice.tokens);
    if (streaming()) send_text(index, "", take_logprobs(choice), choice.finish_reason);
  }

  Json whole() override {
    Json body = head("text_completion");
    body["choices"] = Json::array();
    int index = 0;
    for (std::size_t first = 0; first < choices_.size(); first += best_of_) {
      const auto end = choices_.begin() + static_cast<std::ptrdiff_t>(first + best_of_);
      if (told_ < best_of_)
        std::stable_sort(choices_.begin() + static_cast<std::ptrdiff_t>(first), end,
                         [](const Choice& a, const Choice& b) { return a.likelihood() > b.likelihood(); });
      for (std::size_t i = first; i < first + told_; ++i) {
        Choice& choice = choices_[i];
        body["choices"].push_back(choice_json(index++, choice.text, take_logprobs(choice), choice.finish_reason));
      }
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
    double logprob_sum = 0;
    double likelihood() const { return tokens == 0 ? 0 : logprob_sum / tokens; }  // a token's, on average
    // OpenAI's four lists, of the tokens told since the last chunk.
    Json::Array logprob_tokens = {}, logprobs = {}, tops = {}, offsets = {};
    std::size_t offset = 0;  // of the next token in the text, in characters
  };

  // `event`: null for a prompt's first token, which follows nothing.
  void note(Choice& choice, TokenId token, const TokenEvent* event) {
    const std::string_view bytes = context_.model.tokenizer.bytes(token);
    choice.logprob_tokens.emplace_back(bytes);
    choice.offsets.emplace_back(choice.offset);
    choice.offset +=
        static_cast<std::size_t>(std::ranges::count_if(bytes, [](char c) { return (c & 0xC0) != 0x80; }));
    if (event == nullptr) {
      choice.logprobs.emplace_back(nullptr);
      choice.tops.emplace_back(nullptr);
      return;
    }
    choice.logprobs.emplace_back(static_cast<double>(event->logprob));
    Json top = Json::object();  // the token itself is always in it
    top[bytes] = static_cast<double>(event->logprob);
    for (const TokenLogprob& other : event->top)
      top[context_.model.tokenizer.bytes(other.token)] = static_cast<double>(other.logprob);
    choice.tops.push_back(std::move(top));
  }

  // null if none were asked for, or (in a stream) none came since the last time.
  Json take_logprobs(Choice& choice) const {
    if (!logprobs_ || (streaming() && choice.logprob_tokens.empty())) return nullptr;
    return Json::object({{"tokens", std::exchange(choice.logprob_tokens, {})},
                         {"token_logprobs", std::exchange(choice.logprobs, {})},
                         {"top_logprobs", std::exchange(choice.tops, {})},
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
  bool echo_, silent_;
  std::size_t best_of_, told_;  // of each prompt: choices made, and told
  std::vector<Choice> choices_;
};

}  // namespace

namespace {

std::expected<std::vector<TokenId>, ApiError> tokens_of(const ServedModel& model,
                                                        const CompletionRequest::Prompt& prompt) {
  if (prompt.tokens.empty()) return model.tokenizer.encode(prompt.text);
  std::vector<TokenId> tokens;
  for (const std::int64_t token : prompt.tokens) {
    if (token < 0 || token >= model.vocabulary)
      return std::unexpected(ApiError::bad_value(
          "prompt", fmt::format("Invalid 'prompt': token {} is outside the vocabulary of {}.", token,
                                model.vocabulary)));
    tokens.push_back(static_cast<TokenId>(token));
  }
  return tokens;
}

}  // namespace

void answer_completion(const Answer::Context& context, const CompletionRequest& request) {
  const ServedModel& model = context.model;
  const long wanted = request.tokens_max.value_or(0);
  std::optional<ApiError> error;
  std::vector<std::vector<TokenId>> prompts;
  std::vector<CompletionAnswer::Echo> echoes;
  std::vector<std::shared_ptr<TokenConstraint>> constraints;
  for (std::size_t i = 0; i < request.prompts.size() && !error; ++i) {
    const auto tokens = tokens_of(model, request.prompts[i]);
    error = tokens ? context_error(model, *tokens, wanted) : std::optional(tokens.error());
    for (int c = 0; c < request.best_of && request.form.kind != AnswerForm::Kind::kText && !error; ++c) {
      auto constraint = model.structured->completion(model, request, tokens_left(model, *tokens, wanted));
      if (constraint) {
        constraints.push_back(*std::move(constraint));
      } else {
        error = constraint.error();
      }
    }
    if (error) break;
    CompletionAnswer::Echo echo;
    if (request.echo && !tokens->empty()) echo = {model.tokenizer.decode(*tokens), tokens->front()};
    echoes.push_back(std::move(echo));
    prompts.push_back(*tokens);
  }
  if (error) {
    context.metrics.http_answer(context.path, error->status);
    context.writer->respond(error_response(*error));
    return;
  }
  std::make_shared<CompletionAnswer>(context, request, echoes)
      ->start(prompts, static_cast<int>(std::max(wanted, 1L)), request.logprobs.value_or(0),
              request.logprobs.has_value() || request.best_of > request.choices,
              std::move(constraints));
}

}  // namespace capstan::engine

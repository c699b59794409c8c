// The vocabulary's tree is made once a model, a plan once a grammar, a matcher once an answer.
#include "engine/server/structured_answer.h"

#include <algorithm>

#include "engine/server/chat_grammar.h"
#include "engine/server/served_model.h"

namespace capstan::engine {
namespace {

class AnswerConstraint : public TokenConstraint {
 public:
  // `steer`: the answer must come to an end within `left` tokens. The model outlives the answer.
  AnswerConstraint(std::shared_ptr<TokenPlan> plan, const ServedModel& model, const TokenTrie& trie,
                   std::uint32_t left, bool steer)
      : matcher_(std::move(plan)),
        tokenizer_(model.tokenizer),
        trie_(trie),
        left_(left),
        reserve_(std::min(left / 4, kReserveMax)),
        steer_(steer) {}

  bool mask(std::span<std::uint64_t> allowed) override {
    if (steer_) {
      matcher_.allowed(allowed, std::max<std::uint32_t>(left_, 1), reserve_);
    } else {
      matcher_.allowed(allowed, kDistanceMax * 4);
    }
    return true;
  }
  void accept(TokenId token) override {
    matcher_.accept(token);
    if (left_ > 0) --left_;
    if (next_ < forced_.size() && forced_[next_] == token)
      ++next_;
    else
      forced_.clear(), next_ = 0;
  }
  TokenId forced() override {
    if (next_ == forced_.size()) find_forced();
    return next_ < forced_.size() ? forced_[next_] : -1;
  }

 private:
  // The text that must come, in the tokens that the tokenizer makes of it. What follows may join with the
  // last one, so that one is left to the model, unless a mark follows.
  void find_forced() {
    forced_.clear();
    next_ = 0;
    const TokenMatcher::Forced text = matcher_.forced();
    const TokenId mark = text.mark < kSymbols ? trie_.token_of(text.mark) : -1;
    if (!text.bytes.empty()) forced_ = tokenizer_.encode(text.bytes);
    if (mark < 0 && !forced_.empty()) forced_.pop_back();
    if (mark >= 0) forced_.push_back(mark);
    if (forced_.empty()) return;
    TokenMatcher ahead = matcher_;
    const bool fits = std::ranges::all_of(forced_, [&](TokenId token) { return ahead.accept(token); });
    if (!fits || (steer_ && forced_.size() + ahead.tokens_to_end() > left_)) forced_.clear();
  }

  TokenMatcher matcher_;
  const harmony::Tokenizer& tokenizer_;
  const TokenTrie& trie_;  // of the matcher's plan
  std::uint32_t left_;
  std::uint32_t reserve_;
  bool steer_;
  std::vector<TokenId> forced_;
  std::size_t next_ = 0;
};

std::shared_ptr<const TokenTrie> make_trie(const ServedModel& model) {
  const harmony::Tokenizer& tokenizer = model.tokenizer;
  std::vector<std::string_view> bytes(static_cast<std::size_t>(tokenizer.vocabulary_size()));
  for (TokenId token = 0; token < tokenizer.vocabulary_size(); ++token) {
    if (tokenizer.is_used(token) && !tokenizer.is_special(token))
      bytes[static_cast<std::size_t>(token)] = tokenizer.bytes(token);
  }
  const harmony::FormatTokens& format = model.format;
  std::vector<MarkToken> marks = {{format.start, kStartSymbol},     {format.end, kEndSymbol},
                                  {format.message, kMessageSymbol}, {format.channel, kChannelSymbol},
                                  {format.return_, kReturnSymbol},  {format.call, kCallSymbol}};
  if (format.constrain >= 0) marks.push_back({format.constrain, kConstrainSymbol});
  return std::make_shared<const TokenTrie>(bytes, std::move(marks));
}

// What distinguishes one form from another.
std::string form_key(const AnswerForm& form) {
  std::string key = fmt::format("{} {} {}", static_cast<int>(form.kind), form.text, form.schema.dump());
  for (const std::string& choice : form.choices) append_json_string(key, choice);
  return key;
}

}  // namespace

bool is_structured(const ChatRequest& request) {
  return request.form.kind != AnswerForm::Kind::kText || request.tool_choice != ToolChoice::kAuto ||
         std::ranges::any_of(request.tools, &ChatTool::strict);
}

template <class Compile>
std::expected<std::shared_ptr<TokenPlan>, ApiError> StructuredAnswers::plan(const ServedModel& model,
                                                                            std::string key,
                                                                            Compile compile) {
  std::shared_ptr<const TokenTrie> trie;
  {
    const std::lock_guard lock(mutex_);
    const auto known = std::ranges::find(kept_, key, &Kept::key);
    if (known != kept_.end()) {
      std::rotate(kept_.begin(), known, known + 1);
      return kept_.front().plan;
    }
    if (trie_ == nullptr) trie_ = make_trie(model);
    trie = trie_;
  }
  if (!trie->has_all_bytes()) {
    return std::unexpected(ApiError::unsupported(
        "response_format",
        "This model's vocabulary lacks single bytes, so structured output cannot be promised."));
  }
  auto grammar = compile();
  if (!grammar) return std::unexpected(grammar.error());
  auto made = std::make_shared<TokenPlan>(*grammar, trie);
  const std::lock_guard lock(mutex_);
  kept_.push_front({std::move(key), made});
  if (kept_.size() > kPlansMax) kept_.pop_back();
  return made;
}

StructuredAnswers::Made StructuredAnswers::chat(const ServedModel& model, const ChatRequest& request,
                                                std::uint32_t tokens_left) {
  std::string key = fmt::format("chat {} {} ", static_cast<int>(request.tool_choice), request.tool_named) +
                    form_key(request.form);
  for (const ChatTool& tool : request.tools)
    key += fmt::format("\n{} {} {}", tool.name, tool.strict, tool.parameters.dump());
  auto made = plan(model, std::move(key), [&] { return chat_grammar(request, model.profile.python); });
  if (!made) return std::unexpected(made.error());
  // A free answer that is cut off says so by its finish reason; a bound one comes to its end.
  const bool steer = request.form.kind != AnswerForm::Kind::kText || request.tool_choice != ToolChoice::kAuto;
  return std::make_shared<AnswerConstraint>(*made, model, *trie_, tokens_left, steer);
}

StructuredAnswers::Made StructuredAnswers::completion(const ServedModel& model,
                                                      const CompletionRequest& request,
                                                      std::uint32_t tokens_left) {
  auto made = plan(model, "completion " + form_key(request.form), [&] { return text_grammar(request.form); });
  if (!made) return std::unexpected(made.error());
  return std::make_shared<AnswerConstraint>(*made, model, *trie_, tokens_left, true);
}

}  // namespace capstan::engine

// Writes harmony with a small cursor that knows whether what it writes is scored.
#include "trainer/abacus/conversation.h"

#include <fmt/format.h>

#include <array>

#include "base/assert.h"
#include "trainer/abacus/other_texts.h"
#include "trainer/abacus/phrasing.h"
#include "trainer/abacus/working.h"

namespace capstan::trainer::abacus {
namespace {

class Writer {
 public:
  Writer& special(std::int32_t id) {
    sample_.tokens.push_back(id);
    sample_.is_target.push_back(scored_ ? 1 : 0);
    return *this;
  }
  Writer& text(std::string_view bytes) {
    for (const char c : bytes) special(static_cast<std::uint8_t>(c));
    return *this;
  }
  Writer& message(std::string_view header, std::string_view body) {
    return special(kStart).text(header).special(kMessage).text(body).special(kEnd);
  }
  void score(bool on) { scored_ = on; }
  std::size_t size() const { return sample_.tokens.size(); }
  void unscore(std::size_t token) { sample_.is_target[token] = 0; }
  Sample take() { return std::move(sample_); }

 private:
  Sample sample_;
  bool scored_ = false;
};

void write_prompt(Writer& out, const Conversation& conversation) {
  if (conversation.offers_python) out.message("system", kPythonTools);
  if (!conversation.instructions.empty()) {
    out.message("developer", "# Instructions\n\n" + conversation.instructions);
  }
  for (const Turn& turn : conversation.earlier) {
    out.message("user", turn.question);
    out.special(kStart).text("assistant").special(kChannel).text("final").special(kMessage);
    out.text(turn.answer).special(kEnd);
  }
  out.message("user", conversation.question);
  out.special(kStart).text("assistant");
}

Problem draw_on_side(Kind kind, bool held_out, Prng& rng, Numbers numbers) {
  for (;;) {
    Problem problem = draw_problem(kind, rng, numbers);
    if (is_held_out(problem) == held_out) return problem;
  }
}

}  // namespace

std::string special_name(std::int32_t id) {
  static constexpr std::array<std::string_view, 8> kNames = {"endoftext", "start",     "end",    "message",
                                                             "channel",   "constrain", "return", "call"};
  CAPSTAN_ASSERT(id >= kEndOfText && id < kVocabulary);
  if (id >= kFirstReserved) return fmt::format("<|reserved_{}|>", id);
  return fmt::format("<|{}|>", kNames[static_cast<std::size_t>(id - kEndOfText)]);
}

Conversation draw_conversation(Kind kind, bool held_out, Prng& rng, Numbers numbers) {
  Conversation conversation;
  conversation.problem = draw_on_side(kind, held_out, rng, numbers);
  conversation.question = draw_question(conversation.problem, rng);
  conversation.offers_python = kind == Kind::kPython || (kind != Kind::kTooLong && rng.below(8) == 0);
  if (rng.below(10) == 0) conversation.instructions = draw_instruction(rng);
  if (rng.below(10) == 0) {
    for (auto left = rng.between(1, 2); left > 0; --left) {
      const auto earlier_kind = static_cast<Kind>(rng.below(kKinds));
      const bool python = conversation.offers_python;
      if ((earlier_kind == Kind::kPython && !python) || (earlier_kind == Kind::kTooLong && python)) continue;
      const Problem earlier = draw_on_side(earlier_kind, false, rng, numbers);
      conversation.earlier.push_back({draw_question(earlier, rng), answer(earlier)});
    }
  }
  return conversation;
}

std::string python_call(const Problem& problem) {
  const std::int64_t a = problem.terms[0], b = problem.terms[1];
  if (problem.sign == '/') return fmt::format("print({} // {}, {} % {})", a, b, a, b);
  return fmt::format("print({} {} {})", a, problem.sign, b);
}

std::string python_output(const Problem& problem) {
  if (problem.sign != '/') return answer(problem);
  return fmt::format("{} {}", problem.terms[0] / problem.terms[1], problem.terms[0] % problem.terms[1]);
}

std::vector<std::int32_t> prompt_tokens(const Conversation& conversation) {
  Writer out;
  write_prompt(out, conversation);
  return out.take().tokens;
}

Sample to_sample(const Conversation& conversation, Prng& rng) {
  const Problem& problem = conversation.problem;
  Writer out;
  write_prompt(out, conversation);
  out.score(true);
  if (problem.kind == Kind::kPython) {
    out.special(kChannel)
        .text("analysis to=python code")
        .special(kMessage)
        .text(python_call(problem))
        .special(kCall);
    out.score(false);
    out.special(kStart).text("python to=assistant").special(kChannel).text("analysis").special(kMessage);
    out.text(python_output(problem)).special(kEnd).special(kStart).text("assistant");
    out.score(true);
  } else if (problem.kind != Kind::kTooLong && problem.kind != Kind::kOther) {
    const Working working = make_working(problem, rng);
    out.special(kChannel).text("analysis").special(kMessage);
    const std::size_t begin = out.size();
    out.text(working.text).special(kEnd).special(kStart).text("assistant");
    for (const std::size_t byte : working.not_scored) out.unscore(begin + byte);
  }
  out.special(kChannel).text("final").special(kMessage).text(answer(problem)).special(kReturn);
  return out.take();
}

}  // namespace capstan::trainer::abacus

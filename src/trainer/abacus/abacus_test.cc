// Goal: what abacus learns from is right, reproducible, and disjoint from what it is evaluated on.
// Method: thousands of drawn problems; every claim in their workings is read as text and verified, and the
// answers go through the checker, which works backwards and takes dates from the C++ calendar.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

#include "base/sha256.h"
#include "base/text.h"
#include "harmony/tokenizer.h"
#include "trainer/abacus/checker.h"
#include "trainer/abacus/conversation.h"
#include "trainer/abacus/phrasing.h"
#include "trainer/abacus/source.h"
#include "trainer/abacus/working.h"

namespace capstan::trainer::abacus {
namespace {

constexpr int kProblemsPerKind = 1500;

bool has_working(Kind kind) { return kind < Kind::kPython; }

std::unique_ptr<DataSource> open_source(DataConfig config) {
  auto source = AbacusSource::open(config);
  EXPECT_TRUE(source) << source.error().message;
  return std::move(*source);
}

// "B5-3+2": the value of digits and + - * from left to right, letters skipped.
std::int64_t value_of(std::string_view text) {
  std::int64_t total = 0, number = 0;
  char sign = '+';
  const auto apply = [&] {
    total = sign == '+' ? total + number : sign == '-' ? total - number : total * number;
  };
  for (const char c : text) {
    if (c >= '0' && c <= '9') number = number * 10 + (c - '0');
    if (c == '+' || c == '-' || c == '*') {
      apply();
      sign = c;
      number = 0;
    }
  }
  apply();
  return total;
}

// One word of a working that claims something: "A7+P6+0=1a3", "A7*8=56+0+0=5a6", "4:28+120=148", "E4>T0".
void expect_true_claim(std::string_view word) {
  if (word.ends_with('>')) word.remove_suffix(1);
  if (const auto colon = word.find(':'); colon != std::string_view::npos) word = word.substr(colon + 1);
  for (const char order : {'<', '>'}) {
    const auto at = word.find(order);
    if (at == std::string_view::npos) continue;
    const auto left = value_of(word.substr(0, at)), right = value_of(word.substr(at + 1));
    EXPECT_TRUE(order == '<' ? left < right : left > right) << word;
    return;
  }
  const auto parts = split(word, '=');
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const std::string_view next = parts[i + 1].substr(0, parts[i + 1].find_first_of("+-*"));
    std::int64_t claimed = value_of(next);
    // A column of a subtraction claims borrow and digit: "1-8-1=1a2" says 2 with 10 borrowed.
    if (std::count(parts[i].begin(), parts[i].end(), '-') == 2) claimed = claimed % 10 - 10 * (claimed / 10);
    EXPECT_EQ(value_of(parts[i]), claimed) << word;
  }
}

void expect_true_working(const Problem& problem, const std::string& text) {
  const auto lines = split(text, '\n');
  EXPECT_TRUE(is_right_answer(problem, lines.back())) << text;
  for (const std::string_view line : lines) {
    for (const std::string_view word : split(line, ' ')) {
      if (word.find_first_of("=<>") != std::string_view::npos) expect_true_claim(word);
    }
  }
}

TEST(AbacusTest, EveryClaimOfEveryWorkingIsTrueAndTheLastLineIsTheAnswer) {
  Prng rng(1);
  for (int kind = 0; kind < kKinds; ++kind) {
    if (!has_working(static_cast<Kind>(kind))) continue;
    for (int i = 0; i < kProblemsPerKind; ++i) {
      const Problem problem = draw_problem(static_cast<Kind>(kind), rng);
      const std::string text = make_working(problem, rng).text;
      ASSERT_NO_FATAL_FAILURE(expect_true_working(problem, text));
      ASSERT_FALSE(HasFailure()) << text;
      EXPECT_EQ(text.substr(text.rfind('\n') + 1), answer(problem));
    }
  }
}

TEST(AbacusTest, TheCheckerAcceptsEveryAnswerAndRefusesNearbyOnes) {
  Prng rng(2);
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int i = 0; i < kProblemsPerKind; ++i) {
      const Problem problem = draw_problem(static_cast<Kind>(kind), rng);
      const std::string right = answer(problem);
      EXPECT_TRUE(is_right_answer(problem, right)) << canonical(problem) << " " << right;
      EXPECT_FALSE(is_right_answer(problem, right + "0"));
      EXPECT_FALSE(is_right_answer(problem, "0" + right));
      EXPECT_FALSE(is_right_answer(problem, right + " "));
      std::string wrong = right;
      wrong[0] = wrong[0] == '7' ? '8' : '7';
      EXPECT_FALSE(is_right_answer(problem, wrong)) << canonical(problem) << " " << wrong;
    }
  }
}

TEST(AbacusTest, AWorkingReadsAsTheDocumentationShowsIt) {
  EXPECT_EQ(work_addition(48217, 9386),
            "48217+9386\nE4D8C2B1A7+T0S9R3Q8P6\n"
            "A7+P6+0=1a3 B1+Q8+1=1b0 C2+R3+1=0c6 D8+S9+0=1d7 E4+T0+1=0e5\nf0e5d7c6b0a3\n57603");
  EXPECT_EQ(work_subtraction(12, 30), "12-30\nB1A2-Q3P0\nB1<Q3\nP0-A2-0=1a8 Q3-B1-1=0b1\nb1a8\n-18");
  EXPECT_EQ(work_comparison({5, 17, 12}, false), "min 5,17,12\nB0A5,Q1P7,H1G2\nB0<Q1\nB0<H1\n5");
}

TEST(AbacusTest, TrainingAndEvaluationShareNoProblem) {
  Prng rng(3);
  std::set<std::string> training, evaluation;
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int i = 0; i < 400; ++i) {
      const Conversation seen = draw_conversation(static_cast<Kind>(kind), false, rng);
      training.insert(canonical(seen.problem));
      EXPECT_FALSE(is_held_out(seen.problem));
      if (i < 40) evaluation.insert(canonical(draw_conversation(static_cast<Kind>(kind), true, rng).problem));
    }
  }
  for (const std::string& problem : evaluation) EXPECT_FALSE(training.contains(problem)) << problem;
}

// The stream is part of what makes the run repeatable: whoever changes it must say so by changing this hash,
// and the weights in models/abacus then no longer follow from examples/abacus.
TEST(AbacusTest, TheFirstThousandSamplesHaveTheirKnownHash) {
  const auto source = open_source({.kind = "abacus", .seed = 1, .path = {}, .mixture = {}});
  Sha256 hash;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const Sample sample = source->sample(i);
    for (std::size_t j = 0; j < sample.tokens.size(); ++j) {
      const std::uint8_t bytes[] = {static_cast<std::uint8_t>(sample.tokens[j]),
                                    static_cast<std::uint8_t>(sample.tokens[j] >> 8), sample.is_target[j]};
      hash.update(bytes);
    }
  }
  const Digest digest = hash.finish();
  EXPECT_EQ(hex(digest), "74b4eabdc9e8253d4236962dc7972c082947608fb286e07eced98082361e551d");
}

TEST(AbacusTest, ASampleDependsOnItsIndexAlone) {
  const auto source = open_source({.kind = "abacus", .seed = 5, .path = {}, .mixture = {}});
  const Sample late = source->sample(123456);
  source->sample(7);
  EXPECT_EQ(source->sample(123456).tokens, late.tokens);
  EXPECT_NE(source->sample(123457).tokens, late.tokens);
  EXPECT_NE(source->held_out()->sample(123456).tokens, late.tokens);
}

TEST(AbacusTest, SamplesAreHarmonyWithinTheBoundsAndScoreOnlyTheAssistant) {
  const auto source = open_source({.kind = "abacus", .seed = 6, .path = {}, .mixture = {}});
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const Sample sample = source->sample(i);
    ASSERT_EQ(sample.tokens.size(), sample.is_target.size());
    EXPECT_LE(sample.tokens.size(), kSampleTokensMax);
    EXPECT_EQ(sample.tokens.front(), kStart);
    EXPECT_EQ(sample.tokens.back(), kReturn);
    EXPECT_TRUE(std::all_of(sample.tokens.begin(), sample.tokens.end(),
                            [](int t) { return t >= 0 && t < kFirstReserved; }));
    const auto first =
        std::find(sample.is_target.begin(), sample.is_target.end(), 1) - sample.is_target.begin();
    EXPECT_EQ(sample.tokens[static_cast<std::size_t>(first)], kChannel);
  }
}

TEST(AbacusTest, OnlyTheWrongDigitsOfADivisionAreNotScored) {
  Prng rng(8);
  int wrong = 0;
  for (int i = 0; i < 2000; ++i) {
    const Working working = make_working(draw_problem(Kind::kDivision, rng), rng);
    for (const std::size_t byte : working.not_scored) {
      ++wrong;
      EXPECT_EQ(working.text[byte + 1], ':');
      EXPECT_EQ(working.text.substr(byte, working.text.find('\n', byte) - byte).back(), '>');
    }
  }
  EXPECT_GT(wrong, 200);
}

TEST(AbacusTest, TheIssuesQuestionIsAmongThePhrasings) {
  Prng rng(9);
  Problem problem;
  problem.terms = {48217, 9386};
  std::set<std::string> questions;
  for (int i = 0; i < 2000; ++i) questions.insert(draw_question(problem, rng));
  for (const char* text : {"What is 48217 + 9386?", "48217 + 9386", "48217+9386", "what is 48217 + 9386?",
                           "Please add 48,217 and 9,386."}) {
    EXPECT_TRUE(questions.contains(text)) << text;
  }
  EXPECT_GT(questions.size(), 60u);
}

TEST(AbacusTest, TokenizerFilesLoadAndMapEachByteToItself) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("capstan-abacus-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  ASSERT_TRUE(write_tokenizer_files(folder));
  const auto tokenizer = harmony::Tokenizer::load(folder / "tokenizer.json");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const auto tokens = tokenizer->encode(all + "<|start|>");
  ASSERT_EQ(tokens.size(), 256u + 9u);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(tokens[static_cast<std::size_t>(byte)], byte);
  EXPECT_EQ(tokenizer->decode(tokens), all + "<|start|>");
  for (std::int32_t id = kEndOfText; id < kVocabulary; ++id)
    EXPECT_EQ(tokenizer->special(special_name(id)), id);
  EXPECT_TRUE(std::filesystem::exists(folder / "capstan.json"));
  EXPECT_TRUE(std::filesystem::exists(folder / "generation_config.json"));
  std::filesystem::remove_all(folder);
}

TEST(AbacusTest, AMixtureNamesItsMistakes) {
  const auto unknown = AbacusSource::open({.kind = "abacus", .path = {}, .mixture = {{"additon", 1.0}}});
  ASSERT_FALSE(unknown);
  EXPECT_TRUE(
      unknown.error().message.starts_with("data.mixture: unknown kind 'additon'; the kinds are addition, "));
  EXPECT_FALSE(AbacusSource::open({.kind = "abacus", .path = {}, .mixture = {{"sum", -1.0}}}));
  EXPECT_FALSE(AbacusSource::open({.kind = "abacus", .path = {}, .mixture = {{"sum", 0.0}}}));
}

TEST(CheckerTest, RunsPrintAndNothingElse) {
  EXPECT_EQ(run_print("print(123456789 * 987654321)"), "121932631112635269");
  EXPECT_EQ(run_print("print(100 - 250)"), "-150");
  EXPECT_EQ(run_print("print(17 // 5, 17 % 5)"), "3 2");
  EXPECT_EQ(run_print("print(17 // 0)"), std::nullopt);
  EXPECT_EQ(run_print("print(__import__)"), std::nullopt);
  EXPECT_EQ(run_print("exec(1)"), std::nullopt);
}

TEST(CheckerTest, ReadsRepliesStrictly) {
  std::vector<std::int32_t> tokens = {kChannel, 'f', 'i', 'n', 'a', 'l', kMessage, '5', kReturn};
  const auto reply = parse_reply(tokens);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->back().header, "final");
  EXPECT_EQ(reply->back().text, "5");
  tokens.pop_back();
  EXPECT_FALSE(parse_reply(tokens));
  tokens.front() = kStart;
  EXPECT_FALSE(parse_reply(tokens));
}

}  // namespace
}  // namespace capstan::trainer::abacus

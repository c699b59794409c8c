// capstan-eval-abacus: exact-match accuracy of a model on abacus's held-out problems, per kind.
//
// How it works: problems that training never draws (one in 64, by hash) are asked through the engine, many at
// a time, greedily. A reply counts if it is well-formed harmony, has written its working where one is due,
// and its final channel is exactly right by the checker, which works by other means than the generator. For
// the python kind the call's code is run by the checker's evaluator; its true output goes back to the model,
// and the final must repeat it. Exit codes: 0 evaluated, 1 the model cannot be loaded or run, 2 wrong command
// line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/batching/batch.h"
#include "engine/model/model.h"
#include "trainer/abacus/checker.h"
#include "trainer/abacus/conversation.h"

namespace capstan {
namespace {

namespace abacus = trainer::abacus;
using abacus::Kind;

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kReplyTokensMax = 700;
constexpr int kDrawsPerProblem = 50;  // a small kind may run out of different held-out problems

struct Arguments {
  std::string model = "models/abacus";
  int problems = 6000;
  std::string kind;
  std::uint64_t seed = 1;
  int threads = 0;
  int sequences = 64;
  bool hard = false;
  bool json = false;
  bool verbose = false;
};

// One question on its way through the engine.
struct Case {
  abacus::Conversation conversation;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> reply;  // of the current turn
  bool tool_turn_done = false;
  bool right = false;
  std::string why;  // not right
};

struct Score {
  Kind kind = Kind::kAddition;
  int asked = 0;
  int right = 0;
  double share() const { return asked == 0 ? 0 : static_cast<double>(right) / asked; }
};

// Different held-out problems, evenly over the kinds.
std::vector<Case> draw_cases(const Arguments& arguments) {
  std::vector<Kind> kinds;
  for (int i = 0; i < abacus::kKinds; ++i) kinds.push_back(static_cast<Kind>(i));
  if (!arguments.kind.empty()) kinds = {*abacus::kind_of_name(arguments.kind)};
  std::vector<Case> cases;
  std::uint64_t draw = 0;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const int wanted = arguments.problems * static_cast<int>(i + 1) / static_cast<int>(kinds.size()) -
                       arguments.problems * static_cast<int>(i) / static_cast<int>(kinds.size());
    std::set<std::string> drawn;
    for (int tries = 0; static_cast<int>(drawn.size()) < wanted && tries < wanted * kDrawsPerProblem;
         ++tries) {
      Prng rng(Prng::at(arguments.seed, draw++));
      Case one;
      one.conversation = abacus::draw_conversation(
          kinds[i], true, rng, arguments.hard ? abacus::Numbers::kHard : abacus::Numbers::kPlain);
      if (!drawn.insert(canonical(one.conversation.problem)).second) continue;
      one.prompt = prompt_tokens(one.conversation);
      cases.push_back(std::move(one));
    }
  }
  return cases;
}

bool writes_working(Kind kind) {
  return kind != Kind::kPython && kind != Kind::kTooLong && kind != Kind::kOther;
}

void append_text(std::vector<std::int32_t>& tokens, std::string_view text) {
  for (const char c : text) tokens.push_back(static_cast<std::uint8_t>(c));
}

// Judges a finished turn. True if the model must go on, with the tool's output in its prompt.
bool judge(Case& one) {
  const abacus::Problem& problem = one.conversation.problem;
  const auto messages = abacus::parse_reply(one.reply);
  if (!messages) {
    one.why = "not harmony";
    return false;
  }
  const abacus::ReplyMessage& last = messages->back();
  if (problem.kind == Kind::kPython && !one.tool_turn_done) {
    if (last.header != "analysis to=python code" || last.end != abacus::kCall) {
      one.why = "no call";
      return false;
    }
    const std::string expected = python_output(problem);
    if (abacus::run_print(last.text) != expected) {
      one.why = "wrong code: " + last.text;
      return false;
    }
    one.tool_turn_done = true;
    one.prompt.insert(one.prompt.end(), one.reply.begin(), one.reply.end());
    one.reply.clear();
    one.prompt.push_back(abacus::kStart);
    append_text(one.prompt, "python to=assistant");
    one.prompt.push_back(abacus::kChannel);
    append_text(one.prompt, "analysis");
    one.prompt.push_back(abacus::kMessage);
    append_text(one.prompt, expected);
    one.prompt.push_back(abacus::kEnd);
    one.prompt.push_back(abacus::kStart);
    append_text(one.prompt, "assistant");
    return true;
  }
  const bool working_as_due = writes_working(problem.kind)
                                  ? messages->size() == 2 && messages->front().header == "analysis"
                                  : messages->size() == 1;
  one.right = last.header == "final" && last.end == abacus::kReturn && working_as_due &&
              is_right_answer(problem, last.text);
  if (!one.right) one.why = working_as_due ? "final: " + last.text : "no working, or one too many";
  return false;
}

Result<void> run_cases(engine::Model& model, std::vector<Case>& cases, const Arguments& arguments) {
  engine::Batch batch(model, {.sequences_max = arguments.sequences, .queue_max = arguments.sequences});
  std::vector<std::size_t> waiting;  // indices, the next at the back
  for (std::size_t i = cases.size(); i > 0; --i) waiting.push_back(i - 1);
  int in_flight = 0;
  std::string failure;
  std::size_t done = 0;
  while (!waiting.empty() || in_flight > 0) {
    while (!waiting.empty() && in_flight < arguments.sequences) {
      const std::size_t index = waiting.back();
      waiting.pop_back();
      engine::GenerationRequest request;
      request.prompt = cases[index].prompt;
      request.sampling = {.temperature = 0};
      request.tokens_max = kReplyTokensMax;
      request.stop_tokens = {abacus::kReturn, abacus::kCall, abacus::kEndOfText};
      request.on_token = [&, index](const engine::TokenEvent& event) {
        Case& one = cases[index];
        if (event.token >= 0) one.reply.push_back(event.token);
        if (!event.finish) return;
        --in_flight;
        if (*event.finish == engine::FinishReason::kFailed) failure = event.error;
        if (judge(one)) {
          waiting.push_back(index);
        } else if (++done % 500 == 0 && !arguments.json) {
          std::fprintf(stderr, "\r%zu of %zu", done, cases.size());
        }
      };
      CAPSTAN_TRY([[maybe_unused]] const engine::RequestId id, batch.submit(std::move(request)));
      ++in_flight;
    }
    batch.step();
    if (!failure.empty()) return fail(Code::kUnavailable, "the engine failed: {}", failure);
  }
  if (!arguments.json) std::fprintf(stderr, "\r%*s\r", 30, "");
  return {};
}

std::vector<Score> tally(const std::vector<Case>& cases) {
  std::vector<Score> scores;
  for (const Case& one : cases) {
    const Kind kind = one.conversation.problem.kind;
    if (scores.empty() || scores.back().kind != kind) scores.push_back({.kind = kind});
    ++scores.back().asked;
    if (one.right) ++scores.back().right;
  }
  return scores;
}

std::string readable(const std::vector<std::int32_t>& tokens) {
  std::string text;
  for (const std::int32_t token : tokens) {
    if (token < abacus::kEndOfText) text += static_cast<char>(token);
    if (token >= abacus::kEndOfText) text += abacus::special_name(token);
  }
  return text;
}

void print_text(const std::vector<Score>& scores, const std::vector<Case>& cases, double seconds,
                bool verbose) {
  int asked = 0, right = 0;
  std::printf("%-16s %8s %8s %9s\n", "kind", "problems", "right", "exact");
  for (const Score& score : scores) {
    std::printf("%-16s %8d %8d %8.2f%%\n", std::string(kind_name(score.kind)).c_str(), score.asked,
                score.right, 100 * score.share());
    asked += score.asked;
    right += score.right;
  }
  std::printf("%-16s %8d %8d %8.2f%%\n", "all", asked, right, asked == 0 ? 0.0 : 100.0 * right / asked);
  std::printf("unseen problems, greedy, %.0f s\n", seconds);
  if (!verbose) return;
  for (const Case& one : cases) {
    if (one.right) continue;
    std::printf("\n[%s] %s\n  %s; right: %s\n%s\n",
                std::string(kind_name(one.conversation.problem.kind)).c_str(),
                one.conversation.question.c_str(), one.why.c_str(), answer(one.conversation.problem).c_str(),
                readable(one.reply).c_str());
  }
}

void print_json(const std::vector<Score>& scores, std::uint64_t seed, double seconds) {
  Json kinds = Json::object();
  int asked = 0, right = 0;
  for (const Score& score : scores) {
    kinds[kind_name(score.kind)] =
        Json::object({{"problems", score.asked}, {"right", score.right}, {"exact", score.share()}});
    asked += score.asked;
    right += score.right;
  }
  const Json report = Json::object({{"seed", static_cast<std::int64_t>(seed)},
                                    {"problems", asked},
                                    {"right", right},
                                    {"seconds", seconds},
                                    {"kinds", kinds}});
  std::printf("%s\n", report.dump().c_str());
}

int evaluate(const Arguments& arguments) {
  const auto complain = [](const Error& error) {
    std::fprintf(stderr, "capstan-eval-abacus: %s\n", error.message.c_str());
    return kExitFailed;
  };
  auto model = engine::Model::load(arguments.model, {.threads = arguments.threads});
  if (!model) return complain(model.error());
  if ((*model)->config().vocab < abacus::kVocabulary) {
    return complain({Code::kInvalid,
                     fmt::format("{} has {} tokens; abacus needs {}", arguments.model,
                                 (*model)->config().vocab, abacus::kVocabulary),
                     {}});
  }
  std::vector<Case> cases = draw_cases(arguments);
  const auto begin = std::chrono::steady_clock::now();
  if (const auto ran = run_cases(**model, cases, arguments); !ran) return complain(ran.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::vector<Score> scores = tally(cases);
  if (arguments.json) {
    print_json(scores, arguments.seed, seconds);
  } else {
    print_text(scores, cases, seconds, arguments.verbose);
  }
  return 0;
}

}  // namespace

int run(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Asks a model abacus's held-out problems and prints exact-match accuracy per kind.\n"
      "Example: capstan-eval-abacus --model models/abacus --problems 6000");
  app.add_option("--model", arguments.model, "directory of the model [models/abacus]");
  app.add_option("--problems", arguments.problems, "how many, evenly over the kinds [6000]")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--kind", arguments.kind, "only this kind, e.g. addition")
      ->check([](const std::string& name) {
        return abacus::kind_of_name(name) ? std::string() : "unknown kind '" + name + "'";
      });
  app.add_option("--seed", arguments.seed, "of the drawn problems [1]");
  app.add_option("--threads", arguments.threads, "of the engine [all]")->check(CLI::Range(0, 1024));
  app.add_option("--sequences", arguments.sequences, "asked at a time [64]")->check(CLI::Range(1, 1024));
  app.add_flag("--hard", arguments.hard,
               "numbers as in training: many of few different digits, of like length, or close");
  app.add_flag("--json", arguments.json, "one JSON object for programs");
  app.add_flag("-v,--verbose", arguments.verbose, "also print every wrong reply");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  return evaluate(arguments);
}

}  // namespace capstan

int main(int argc, char** argv) { return capstan::run(argc, argv); }

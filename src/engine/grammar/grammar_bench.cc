// Question: what does structured output cost at the size of gpt-oss's vocabulary? For schemas from plain to
// hostile: building the grammar, the first mask of each state, and a mask that is known; over random answers.
//
//   grammar_bench [o200k_base.tiktoken] [ANSWERS]
//
// Without the rank file, 200,000 tokens are made up: all bytes, and pieces of words, numbers and JSON. Prints
// a JSON object a schema; `fingerprint` is a hash of the answers, so a faster wrong mask shows.
#include <bit>
#include <chrono>
#include <cstdio>
#include <set>

#include "base/base64.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/grammar/grammar_testing.h"
#include "engine/grammar/json_schema.h"

namespace {

using namespace capstan;
using namespace capstan::engine;
using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point then) {
  return std::chrono::duration<double, std::micro>(Clock::now() - then).count();
}

std::deque<std::string> vocabulary(const char* path) {
  std::deque<std::string> texts;
  if (const auto ranks = path != nullptr ? read_file(path) : Result<std::string>(std::string())) {
    for (std::size_t at = 0; at < ranks->size();) {
      const std::size_t end = std::min(ranks->find('\n', at), ranks->size());
      const std::string_view line = std::string_view(*ranks).substr(at, end - at);
      texts.push_back(base64_decode(line.substr(0, line.find(' '))).value_or(""));
      at = end + 1;
    }
  }
  if (!texts.empty()) return texts;
  Prng random(1);
  for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
  std::set<std::string> seen(texts.begin(), texts.end());
  while (texts.size() < 200'000) {
    static constexpr std::string_view kPieces[] = {"e", "t",  "a",   "in", "er", "th", "on", "é", "漢",
                                                   " ", "\"", "\":", "{",  "0",  "1",  "_",  "-", ",\""};
    std::string text;
    for (std::uint64_t i = 1 + random.below(7); i > 0; --i) text += kPieces[random.below(std::size(kPieces))];
    if (seen.insert(text).second) texts.push_back(text);
  }
  return texts;
}

struct Question {
  const char* name;
  std::string schema;
};

std::vector<Question> questions() {
  std::string wide = R"({"type":"object","properties":{)", names = "[";
  for (int i = 0; i < 300; ++i)
    wide += fmt::format(R"({}"property_{}":{{"type":"string"}})", i > 0 ? "," : "", i);
  for (int i = 0; i < 4000; ++i)
    names += fmt::format(R"({}"value {} of many")", i > 0 ? "," : "", i * 7919 % 100'003);
  return {
      {"three fields",
       R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},)"
       R"("email":{"type":"string","format":"email"}},"required":["name","age","email"],"additionalProperties":false})"},
      {"any object", R"({"type":"object"})"},
      {"text of at most 1,000 characters", R"({"type":"string","maxLength":1000})"},
      {"pattern of 1,000 characters", R"({"type":"string","pattern":"^[a-z ]*$","maxLength":1000})"},
      {"300 optional properties", wide + "}}"},
      {"enum of 4,000", R"({"enum":)" + names + "]}"},
      {"unicode pattern", R"({"type":"string","pattern":"^\\p{Lu}[\\p{L} '-]{1,60}$"})"},
      {"recursive tree",
       R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"number"},"c":{"type":"array","items":{"$ref":"#/$defs/n"}}},)"
       R"("required":["v","c"]}},"$ref":"#/$defs/n"})"},
      {"steps of 0.01 between bounds",
       R"({"type":"number","minimum":-1000,"maximum":1000,"multipleOf":0.01})"}};
}

void run(const Question& question, const std::shared_ptr<const TokenTrie>& trie, int answers) {
  const Json schema = Json::parse(question.schema).value();
  auto begin = Clock::now();
  const auto grammar = compile_json_schema(schema);
  const double build_us = us_since(begin);
  if (!grammar) {
    std::printf("{\"schema\":\"%s\",\"refused\":\"%s\"}\n", question.name, grammar.error().message.c_str());
    return;
  }
  const auto plan = std::make_shared<TokenPlan>(*grammar, trie);
  TokenMask mask(trie->mask_words());
  double first_us = 0, first_max = 0, known_us = 0, known_max = 0;
  std::uint64_t fingerprint = 0;
  long tokens = 0;
  Prng random(7);
  for (int answer = 0; answer < answers; ++answer) {
    TokenMatcher matcher(plan);
    for (int left = 400; left > 0; --left) {
      begin = Clock::now();
      matcher.allowed(mask, static_cast<std::uint32_t>(left));
      const double once = us_since(begin);
      begin = Clock::now();
      matcher.allowed(mask, static_cast<std::uint32_t>(left));
      const double again = us_since(begin);
      first_us += once, known_us += again;
      first_max = std::max(first_max, once), known_max = std::max(known_max, again);
      ++tokens;
      // A random one of those allowed.
      std::size_t word = random.below(mask.size());
      std::size_t looked = 0;
      while (looked < mask.size() && mask[word] == 0) word = (word + 1) % mask.size(), ++looked;
      if (looked == mask.size()) break;
      const int bit = std::countr_zero(mask[word]);
      const auto token = static_cast<std::int32_t>(word * 64 + static_cast<std::size_t>(bit));
      fingerprint = Prng::mix(fingerprint ^ static_cast<std::uint64_t>(token));
      if (!matcher.accept(token)) break;
    }
  }
  std::printf(
      "{\"schema\":\"%s\",\"build_us\":%.0f,\"tokens\":%ld,\"mask_us_mean\":%.1f,\"mask_us_max\":%.0f,"
      "\"known_mask_us_mean\":%.1f,\"known_mask_us_max\":%.0f,\"fingerprint\":\"%016llx\"}\n",
      question.name, build_us, tokens, first_us / static_cast<double>(tokens), first_max,
      known_us / static_cast<double>(tokens), known_max, static_cast<unsigned long long>(fingerprint));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::deque<std::string> texts = vocabulary(argc > 1 ? argv[1] : nullptr);
  const auto begin = Clock::now();
  const auto trie = std::make_shared<const TokenTrie>(
      std::vector<std::string_view>(texts.begin(), texts.end()), std::vector<MarkToken>{});
  std::printf("{\"vocabulary\":%zu,\"tree_us\":%.0f,\"tree_nodes\":%zu}\n", texts.size(), us_since(begin),
              trie->all().size());
  const int answers = argc > 2 ? std::atoi(argv[2]) : 3;
  for (const Question& question : questions()) run(question, trie, answers);
  return 0;
}

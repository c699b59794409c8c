// Fuzzes the compilers of schemas, GBNF and patterns, and what they compile to: no input may crash them, take
// long, or lead to a state that has no way to an end.
//
// The first byte says which compiler reads the rest.
#include "base/fuzz_rounds.h"
#include "engine/grammar/dfa.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/grammar_testing.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/regex.h"

namespace {

using namespace capstan;
using namespace capstan::engine;

// A short random answer with a budget: it must end if there is room for the shortest.
void check(const std::shared_ptr<const Grammar>& grammar, std::size_t seed, bool json) {
  static const auto kTrie = engine::testing::small_vocabulary();
  const auto plan = std::make_shared<TokenPlan>(grammar, kTrie);
  if (grammar->distance(grammar->root) > 2'000) return;
  const std::uint32_t shortest = TokenMatcher(plan).tokens_to_end();
  Prng random(seed);
  const auto answer = engine::testing::random_answer(plan, *kTrie, static_cast<int>(shortest) + 12, random);
  if (answer.failed) return;  // too ambiguous, which is refused at run time
  const bool fine = answer.ended && (!json || Json::parse(answer.text).has_value());
  if (fine) return;
  std::fprintf(stderr, "no whole answer: %s\n", answer.text.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 16'384) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) {
    const auto schema = Json::parse(text);
    if (!schema) return 0;
    if (const auto grammar = compile_json_schema(*schema)) check(*grammar, size, true);
  } else if (data[0] % 3 == 1) {
    if (const auto grammar = compile_gbnf(text)) check(*grammar, size, false);
  } else if (const auto dfa = parse_pattern(text)) {
    (void)dfa->matches("abc 123");
  }
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  std::vector<std::string> seeds = {
      "\x01root ::= \"a\" [b-z]* (x | y{2,3})\nx ::= \"1\" x | \"\"\ny ::= [^\\n] #c\n",
      "\x01root ::= item+\nitem ::= \"- \" [^\\n]+ \"\\n\"", "\x02^(a|b[^c]{2,5})+\\d\\w$",
      "\x02[\\u00e0-\\u00ff]?x*?"};
  const auto schemas = read_file("src/engine/grammar/testdata/schemas.json");
  const auto list = Json::parse(schemas ? *schemas : "[]");
  if (list && list->is_array()) {
    for (const Json& item : list->items())
      seeds.push_back(std::string(1, '\0') + item.find("schema")->dump());
  }
  return fuzz_rounds(argc, argv, seeds, 1'500);
}
#endif

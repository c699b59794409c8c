// For tests of this folder: a small vocabulary with long tokens, and a model that chooses at random.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/prng.h"
#include "engine/grammar/token_matcher.h"

namespace capstan::engine::testing {

// Every byte, and pieces that cross the borders of JSON's parts, as real vocabularies have them.
inline std::shared_ptr<const TokenTrie> small_vocabulary() {
  static std::deque<std::string> texts;
  if (texts.empty()) {
    for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* piece :
         {"{\"",  "\":",  "\": ",     "\",", "\", \"", "\":\"",     "\"}",      "\"]",      "},{\"",
          "]}",   "}}",   "[]",       "{}",  "null",   "true",      "false",    "nul",      "tru",
          "  ",   "    ", "        ", "\n",  "\n ",    "\n  ",      ",\n",      "name",     "value",
          "the ", " of",  "ing",      "é",   "漢字",   "🙂",      "\xE6\xBC", "\xF0\x9F", "\\\"",
          "\\n",  "\\u",  "\\u00",    "12",  "123",    "2024",      "-0",       "0.",       ".5",
          "e+",   "1e",   "00",       "a\"", "a\":",   "b\",\"",    "x\":1",    "INV-",     "2024-",
          "://",  "@",    ".com",     "abc", "abcdef", "type\":\"", "}]",       "]]",       "],["}) {
      if (std::string_view(piece).size() > 1) texts.push_back(piece);
    }
    for (char a = 'a'; a <= 'z'; ++a)
      for (char b = 'a'; b <= 'z'; ++b) texts.push_back({a, b});
    for (int n = 10; n < 100; ++n) {
      if (n != 12) texts.push_back(std::to_string(n));
    }
  }
  return std::make_shared<TokenTrie>(std::vector<std::string_view>(texts.begin(), texts.end()),
                                     std::vector<MarkToken>{});
}

struct RandomAnswer {
  std::string text;
  bool ended = false;   // the grammar was satisfied within the budget
  bool failed = false;  // nothing was allowed
  int tokens = 0;
};

// Tokens drawn uniformly among the allowed ones, and an end with a chance of `end_in` wherever one is
// allowed.
inline RandomAnswer random_answer(const std::shared_ptr<TokenPlan>& plan, const TokenTrie& trie, int budget,
                                  Prng& random, std::uint64_t end_in = 3) {
  TokenMatcher matcher(plan);
  TokenMask mask(trie.mask_words());
  RandomAnswer answer;
  while (answer.tokens < budget) {
    if (matcher.is_end() && (random.below(end_in) == 0 || answer.tokens + 1 == budget)) break;
    matcher.allowed(mask, static_cast<std::uint32_t>(budget - answer.tokens));
    std::vector<std::int32_t> allowed;
    for (std::size_t token = 0; token < trie.vocabulary(); ++token)
      if (has_token(mask, static_cast<std::int32_t>(token)))
        allowed.push_back(static_cast<std::int32_t>(token));
    if (allowed.empty()) break;
    const std::int32_t token = allowed[random.below(allowed.size())];
    if (!matcher.accept(token)) {
      answer.failed = true;
      return answer;
    }
    answer.text += trie.bytes(token);
    ++answer.tokens;
  }
  answer.ended = matcher.is_end();
  answer.failed = matcher.failed();
  return answer;
}

}  // namespace capstan::engine::testing

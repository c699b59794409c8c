// Fuzzes the parser and the tokenizer: no input may crash them, break the shape of events, or change bytes.
//
// With clang: `clang++ -fsanitize=fuzzer,address -std=c++23 -DCAPSTAN_LIBFUZZER …` makes a libFuzzer target
// of it. Without, main() below runs a corpus of random streams (argument: how many) and every file named
// after it, so `make test` keeps it alive.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/file.h"
#include "base/fuzz_rounds.h"
#include "harmony/parser_soup.h"
#include "harmony/tokenizer_testing.h"

namespace {

using namespace capstan;
using namespace capstan::harmony;

// The same stream whole and byte by byte.
void check_parser(std::string_view input) {
  for (const Parser::Begin begin : {Parser::Begin::kBehindAssistant, Parser::Begin::kNothing}) {
    TextReader whole(begin), bytes(begin);
    std::vector<Event> first = whole.push(input), second;
    for (Event& event : whole.finish()) first.push_back(std::move(event));
    for (std::size_t i = 0; i < input.size(); ++i) {
      for (Event& event : bytes.push(input.substr(i, 1))) second.push_back(std::move(event));
    }
    for (Event& event : bytes.finish()) second.push_back(std::move(event));
    must_hold(broken_property(first).empty(), "events are malformed", input);
    const auto a = collect_messages(first), b = collect_messages(second);
    must_hold(a.size() == b.size(), "the cut changes the messages", input);
    for (std::size_t i = 0; i < a.size(); ++i) {
      must_hold(a[i].header == b[i].header && a[i].text == b[i].text && a[i].end == b[i].end,
                "the cut changes a message", input);
    }
  }
}

void check_tokenizer(std::string_view input) {
  static const Tokenizer tokenizer = byte_level_tokenizer();
  static const FormatTokens format = *FormatTokens::of(tokenizer);
  const std::vector<TokenId> tokens = tokenizer.encode(input);
  must_hold(tokenizer.decode(tokens) == input, "decode(encode(text)) differs", input);
  TokenReader reader(tokenizer, format);
  std::vector<Event> events;
  for (const TokenId token : tokenizer.encode_with_specials(input)) {
    for (Event& event : reader.push(token)) events.push_back(std::move(event));
  }
  for (Event& event : reader.finish()) events.push_back(std::move(event));
  must_hold(broken_property(events).empty(), "token events are malformed", input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check_parser(input);
  check_tokenizer(input);
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 2'000;
  Prng random(42);
  for (int round = 0; round < rounds; ++round) {
    std::string input = random_soup(random, static_cast<int>(random.below(40)));
    // Some bytes of any kind on top: cut characters, zeros, the parser's own marker.
    for (std::uint64_t i = random.below(6); i > 0 && !input.empty(); --i) {
      input[random.below(input.size())] = static_cast<char>(random.below(256));
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  for (int i = 2; i < argc; ++i) {
    const auto input = read_file(argv[i]);
    if (!input) return 1;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input->data()), input->size());
  }
  std::printf("%d random streams, %d files\n", rounds, argc > 2 ? argc - 2 : 0);
  return 0;
}
#endif

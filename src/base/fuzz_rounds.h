// The main() of a fuzzer that is built without libFuzzer: a fixed number of mutations of seed inputs, the
// same on every run, then every file named on the command line. So `make test` keeps fuzzers alive; `make
// fuzz` runs them for long.
//
//   #ifndef CAPSTAN_LIBFUZZER
//   int main(int argc, char** argv) { return capstan::fuzz_rounds(argc, argv, {"seed", "another"}, 2'000); }
//   #endif
//
// argv[1]: the number of rounds, in place of `rounds`. Exit code 1: a file cannot be read; a finding aborts.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/prng.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace capstan {

// What a fuzzer checks: if it does not hold, says which and on what input, and aborts.
inline void must_hold(bool holds, const char* what, std::string_view input) {
  if (holds) return;
  std::fprintf(stderr, "%s; input: %.*s\n", what, static_cast<int>(input.size()), input.data());
  std::abort();
}

// Bytes changed, removed, doubled, and pieces of other seeds put in.
inline std::string mutated(std::string text, const std::vector<std::string>& seeds, Prng& random) {
  for (std::uint64_t i = 1 + random.below(5); i > 0; --i) {
    const std::size_t at = random.below(text.size() + 1);
    const std::string& other = seeds[random.below(seeds.size())];
    const std::size_t begin = random.below(other.size() + 1);
    switch (random.below(5)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        text.erase(at, 1 + random.below(8));
        break;
      case 2:
        text.insert(at, other.substr(begin, random.below(24)));
        break;
      case 3:
        text.insert(at, 1, static_cast<char>(32 + random.below(95)));
        break;
      case 4:
        text.insert(at, text.substr(random.below(text.size() + 1), random.below(64)));
        break;
    }
  }
  return text;
}

inline int fuzz_rounds(int argc, char** argv, const std::vector<std::string>& seeds, int rounds) {
  const auto run = [](const std::string& input) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  };
  if (argc > 1) rounds = std::atoi(argv[1]);
  Prng random(42);
  for (const std::string& seed : seeds) run(seed);
  for (int round = 0; round < rounds; ++round) run(mutated(seeds[random.below(seeds.size())], seeds, random));
  for (int i = 2; i < argc; ++i) {
    const auto input = read_file(argv[i]);
    if (!input) return 1;
    run(*input);
  }
  std::printf("%zu seeds, %d mutations, %d files\n", seeds.size(), rounds, argc > 2 ? argc - 2 : 0);
  return 0;
}

}  // namespace capstan

// Fuzzes the loader of tokenizer.json: a hostile file is refused, or it is a tokenizer whose tokens decode to
// the text.
#include "base/fuzz_rounds.h"
#include "harmony/tokenizer_testing.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tokenizer = capstan::harmony::Tokenizer::from_json({reinterpret_cast<const char*>(data), size});
  if (!tokenizer) return 0;
  constexpr std::string_view kText = "Hello, w\xC3\xB6rld!\n  123 <|start|>\xFF";
  (void)tokenizer->decode(tokenizer->encode(kText));
  (void)tokenizer->encode_with_specials(kText);
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  const std::string small =
      R"({"added_tokens":[{"id":5,"content":"<|start|>","special":true}],"normalizer":null,)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)"
      R"({"type":"Split","pattern":{"Regex":"\\w+|\\s+"},"behavior":"Isolated",)"
      R"("invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"c":3,"abc":4},"merges":["a b",["ab","c"]],)"
      R"("ignore_merges":true}})";
  return capstan::fuzz_rounds(argc, argv, {small, capstan::harmony::byte_level_json().dump()}, 1'500);
}
#endif

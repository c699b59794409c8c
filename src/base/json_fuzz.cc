// Fuzzes JSON: whatever is read is written so that it reads back equal.
#include "base/fuzz_rounds.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = capstan::Json::parse({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  for (const std::string& text : {json->dump(), json->pretty()}) {
    const auto again = capstan::Json::parse(text);
    if (again && again->dump() == json->dump()) continue;
    std::fprintf(stderr, "does not read back: %s\n", text.c_str());
    std::abort();
  }
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  return capstan::fuzz_rounds(argc, argv,
                              {R"({"a":[1,-2.5e3,"x\u00e9\ud83d\ude42",null,true],"b":{"":{}}})",
                               R"([[[[]]],"\\\"\n",0.1,1e308,-0.0])", R"(9223372036854775807)"},
                              4'000);
}
#endif

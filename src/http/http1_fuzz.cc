// Fuzzes what strangers' bytes meet first: the readers of HTTP/1.1. No input may crash them, and how it is cut must not
// change what is read.
//
// With clang: `clang++ -fsanitize=fuzzer,address -std=c++23 -DCAPSTAN_LIBFUZZER …` makes a libFuzzer target of it.
// Without, main() below runs seeded mutations of requests (argument: how many), so `make test` keeps it alive.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/prng.h"
#include "http/http1_reader.h"

namespace {

using namespace capstan;
using namespace capstan::http;

// As a connection does: what is not consumed comes again with more behind it.
std::vector<Request> read(std::string_view input, std::size_t piece) {
  RequestReader reader({.header_bytes_max = 1'024, .body_bytes_max = 1'024});
  std::vector<Request> out;
  std::string pending;
  for (std::size_t at = 0; at < input.size(); at += piece) {
    pending += input.substr(at, piece);
    while (!pending.empty()) {
      const std::size_t used = reader.feed(pending);
      if (used > pending.size()) std::abort();
      pending.erase(0, used);
      if (reader.failed()) return out;
      if (reader.body_bytes() > 1'024) std::abort();
      if (reader.done()) {
        out.push_back(reader.take());
      } else if (used == 0) {
        break;
      }
    }
  }
  return out;
}

void check(std::string_view input) {
  const std::vector<Request> whole = read(input, input.size() + 1);
  for (const std::size_t piece : {1, 7}) {
    const std::vector<Request> cut = read(input, piece);
    // What is wrong may be refused for another reason, or only when more has come; but no other request may be read.
    bool same = whole.size() == cut.size();
    for (std::size_t i = 0; same && i < whole.size(); ++i) {
      const Request &a = whole[i], &b = cut[i];
      same = a.method == b.method && a.target == b.target && a.body == b.body && a.headers.all() == b.headers.all();
    }
    if (same) continue;
    std::fprintf(stderr, "the cut changes what is read; input: %.*s\n", static_cast<int>(input.size()), input.data());
    std::abort();
  }
  ResponseReader response;
  response.start(false);
  bool going = true;
  const ResponseReader::Callbacks callbacks{[](Response&) {}, [](std::string_view) {}, [&going] { return going; }};
  (void)response.feed(input, callbacks);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t count) {
  check({reinterpret_cast<const char*>(bytes), count});
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  static constexpr std::string_view kSeeds[] = {
      "POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: y\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
      "GET / HTTP/1.0\r\nConnection: keep-alive\r\nX: \tfolded\r\n\r\n"};
  static constexpr std::string_view kBytes = "\r\n :;,\t0123456789abcdefxX/?%&=\"\\\0\x7f\xff";
  Prng prng(11);
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20'000;
  for (int round = 0; round < rounds; ++round) {
    std::string text(kSeeds[prng.below(std::size(kSeeds))]);
    for (std::uint64_t edits = prng.below(5); edits > 0; --edits) {
      const std::size_t at = prng.below(text.size());
      const char byte = kBytes[prng.below(kBytes.size())];
      switch (prng.below(4)) {
        case 0: text[at] = byte; break;
        case 1: text.insert(at, 1, byte); break;
        case 2: text.erase(at, 1 + prng.below(4)); break;
        default: text.insert(at, text.substr(prng.below(text.size()), prng.below(40)));
      }
      if (text.empty()) text = "x";
    }
    check(text);
  }
  std::printf("%d inputs\n", rounds);
}
#endif

// Goal: events come out whole however the bytes were cut.
#include "gateway/event_splitter.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/prng.h"

namespace capstan::gateway {
namespace {

constexpr std::string_view kStream =
    "data: {\"a\":1}\n\n: comment\n\nevent: x\ndata: one\ndata:two\n\ndata: crlf\r\n\r\ndata: [DONE]\n\n";

std::vector<std::string> split(const std::vector<std::string_view>& pieces, std::string& raws) {
  EventSplitter splitter;
  std::vector<std::string> out;
  for (const std::string_view piece : pieces) {
    EXPECT_TRUE(splitter.feed(piece, [&](std::string_view raw, std::string_view data) {
      raws += raw;
      out.emplace_back(data);
    }));
  }
  EXPECT_TRUE(splitter.between_events());
  return out;
}

TEST(EventSplitterTest, EventsComeWholeHoweverTheBytesAreCut) {
  const std::vector<std::string> wanted = {R"({"a":1})", "", "one\ntwo", "crlf", "[DONE]"};
  Prng prng(1);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::string_view> pieces;
    for (std::size_t at = 0; at < kStream.size();) {
      const std::size_t count = round == 0 ? kStream.size() : 1 + prng.below(20);
      pieces.push_back(kStream.substr(at, count));
      at += count;
    }
    std::string raws;
    EXPECT_EQ(split(pieces, raws), wanted);
    EXPECT_EQ(raws, kStream);
  }
}

TEST(EventSplitterTest, AnEventThatNeverEndsIsRefusedAtItsBound) {
  EventSplitter splitter;
  const std::string piece(1u << 20, 'x');
  int pieces = 0;
  while (splitter.feed(piece, [](std::string_view, std::string_view) {}) && pieces < 100) ++pieces;
  EXPECT_EQ(pieces, static_cast<int>(kEventBytesMax >> 20));
}

}  // namespace
}  // namespace capstan::gateway

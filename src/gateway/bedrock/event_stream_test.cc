// Goal: frames are what AWS's own codec writes and reads, and a broken frame is told from a short one.
#include "gateway/bedrock/event_stream.h"

#include <gtest/gtest.h>

#include "base/text.h"

namespace capstan::gateway::bedrock {
namespace {

std::string hex_of(std::string_view bytes) {
  return hex({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

// The bytes were written by @smithy/eventstream-codec 4 for the same headers and payload.
TEST(EventStream, AFrameIsByteForByteWhatTheSdksCodecWrites) {
  EXPECT_EQ(hex_of(encode({{{":message-type", "event"}}, R"({"a":1})"})),
            "0000002d00000016a8a7818d0d3a6d6573736167652d747970650700056576656e747b2261223a317deaf55e15");
}

TEST(EventStream, FramesAreReadBackFromAnyPieces) {
  const std::string bytes = encode_event("messageStart", R"({"role":"assistant"})") + encode_event("x", "") +
                            encode_exception("throttlingException", "too fast");
  for (const std::size_t piece : {1u, 7u, 1000u}) {
    EventStreamDecoder decoder;
    std::vector<EventMessage> messages;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      decoder.feed(std::string_view(bytes).substr(at, piece));
      while (auto message = decoder.next().value()) messages.push_back(*std::move(message));
    }
    ASSERT_EQ(messages.size(), 3u);
    EXPECT_TRUE(decoder.empty());
    EXPECT_EQ(messages[0].header(":event-type"), "messageStart");
    EXPECT_EQ(messages[0].header(":message-type"), "event");
    EXPECT_EQ(messages[0].header(":content-type"), "application/json");
    EXPECT_EQ(messages[0].payload, R"({"role":"assistant"})");
    EXPECT_EQ(messages[1].payload, "");
    EXPECT_EQ(messages[2].header(":message-type"), "exception");
    EXPECT_EQ(messages[2].header(":exception-type"), "throttlingException");
    EXPECT_EQ(messages[2].payload, R"({"message":"too fast"})");
  }
}

TEST(EventStream, AnyFlippedBitIsFound) {
  const std::string good = encode_event("messageStop", R"({"stopReason":"end_turn"})");
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    EventStreamDecoder decoder;
    decoder.feed(bad);
    EXPECT_FALSE(decoder.next().has_value()) << "byte " << at;
  }
}

TEST(EventStream, ATooLongFrameIsRefusedBeforeItsBytesCome) {
  std::string prelude = encode({{}, std::string(kFrameBytesMax, ' ')}).substr(0, 12);
  EventStreamDecoder decoder;
  decoder.feed(prelude);
  EXPECT_EQ(decoder.next().error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace capstan::gateway::bedrock

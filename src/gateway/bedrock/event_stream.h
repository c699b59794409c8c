// AWS's event-stream framing (application/vnd.amazon.eventstream): messages with headers and two CRCs.
//
//   writer->write(encode_event("contentBlockDelta", json));      // one frame
//   EventStreamDecoder decoder;  decoder.feed(bytes);  while (auto message = decoder.next()) …
//
// A frame: u32 length of all, u32 length of the headers, u32 CRC-32 of these eight bytes, headers, payload,
// u32 CRC-32 of everything before; big-endian. A header: u8 length, name, u8 type 7 (string), u16 length,
// value. Threads: values.  Bounds: kFrameBytesMax; the decoder knows all ten types of headers and keeps
// strings only. Failure of the decoder: kCorrupt; it stays broken. The decoder is for tests and clients of
// ours, the server only writes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace capstan::gateway::bedrock {

inline constexpr std::size_t kFrameBytesMax = 24u << 20;
inline constexpr std::size_t kFrameHeaderBytesMax = 128u << 10;

struct EventMessage {
  std::vector<std::pair<std::string, std::string>> headers;
  std::string payload;
  std::string header(std::string_view name) const;  // "" if there is none
};

std::string encode(const EventMessage& message);
// A message of the type event; `payload` is JSON.
std::string encode_event(std::string_view event_type, std::string_view payload);
// A message of the type exception: the SDKs raise it in the middle of the iteration. `member` is lower camel
// case.
std::string encode_exception(std::string_view member, std::string_view message);

class EventStreamDecoder {
 public:
  void feed(std::string_view bytes) { pending_ += bytes; }
  // The next whole message; nullopt if more bytes are needed.
  Result<std::optional<EventMessage>> next();
  bool empty() const { return pending_.empty(); }

 private:
  std::string pending_;
};

}  // namespace capstan::gateway::bedrock

#include "gateway/bedrock/event_stream.h"

#include <zlib.h>

#include <array>

#include "base/assert.h"
#include "base/json.h"

namespace capstan::gateway::bedrock {
namespace {

constexpr std::size_t kPreludeBytes = 12;  // two lengths and their CRC
constexpr std::size_t kCrcBytes = 4;
constexpr std::uint8_t kStringType = 7;
// Bytes of a value by its type: true, false, i8, i16, i32, i64, bytes, string (both with a length of two
// bytes), time, UUID.
constexpr std::array<int, 10> kValueBytes = {0, 0, 1, 2, 4, 8, -1, -1, 8, 16};

std::uint32_t crc_of(std::string_view bytes) {
  return static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

void put(std::string& out, std::uint32_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFFu);
}

std::uint32_t get(std::string_view bytes, std::size_t at, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  return value;
}

Result<std::vector<std::pair<std::string, std::string>>> decode_headers(std::string_view bytes) {
  std::vector<std::pair<std::string, std::string>> headers;
  std::size_t at = 0;
  const auto left = [&] { return bytes.size() - at; };
  while (at < bytes.size()) {
    const std::size_t name_bytes = get(bytes, at, 1);
    if (name_bytes == 0 || left() < name_bytes + 2)
      return fail(Code::kCorrupt, "a header of the event stream is cut off");
    std::string name(bytes.substr(at + 1, name_bytes));
    const std::uint32_t type = get(bytes, at + 1 + name_bytes, 1);
    at += name_bytes + 2;
    if (type >= kValueBytes.size())
      return fail(Code::kCorrupt, "the header '{}' has the unknown type {}", name, type);
    std::size_t value_bytes = 0;
    if (kValueBytes[type] >= 0) {
      value_bytes = static_cast<std::size_t>(kValueBytes[type]);
    } else {
      if (left() < 2) return fail(Code::kCorrupt, "the header '{}' is cut off", name);
      value_bytes = get(bytes, at, 2);
      at += 2;
    }
    if (left() < value_bytes) return fail(Code::kCorrupt, "the header '{}' is cut off", name);
    if (type == kStringType) headers.emplace_back(std::move(name), bytes.substr(at, value_bytes));
    at += value_bytes;
  }
  return headers;
}

}  // namespace

std::string EventMessage::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string encode(const EventMessage& message) {
  std::string headers;
  for (const auto& [name, value] : message.headers) {
    CAPSTAN_ASSERT(!name.empty() && name.size() <= 255 && value.size() <= 0xFFFF);
    put(headers, static_cast<std::uint32_t>(name.size()), 1);
    headers += name;
    put(headers, kStringType, 1);
    put(headers, static_cast<std::uint32_t>(value.size()), 2);
    headers += value;
  }
  std::string out;
  const std::size_t total = kPreludeBytes + headers.size() + message.payload.size() + kCrcBytes;
  out.reserve(total);
  put(out, static_cast<std::uint32_t>(total), 4);
  put(out, static_cast<std::uint32_t>(headers.size()), 4);
  put(out, crc_of(out), 4);
  out += headers;
  out += message.payload;
  put(out, crc_of(out), 4);
  return out;
}

std::string encode_event(std::string_view event_type, std::string_view payload) {
  return encode({{{":event-type", std::string(event_type)},
                  {":content-type", "application/json"},
                  {":message-type", "event"}},
                 std::string(payload)});
}

std::string encode_exception(std::string_view member, std::string_view message) {
  return encode({{{":exception-type", std::string(member)},
                  {":content-type", "application/json"},
                  {":message-type", "exception"}},
                 Json::object({{"message", message}}).dump()});
}

Result<std::optional<EventMessage>> EventStreamDecoder::next() {
  if (pending_.size() < kPreludeBytes) return std::nullopt;
  const std::size_t total = get(pending_, 0, 4);
  const std::size_t header_bytes = get(pending_, 4, 4);
  if (get(pending_, 8, 4) != crc_of(std::string_view(pending_).substr(0, 8)))
    return fail(Code::kCorrupt, "the checksum of the lengths of an event is wrong");
  if (total > kFrameBytesMax || header_bytes > kFrameHeaderBytesMax ||
      total < kPreludeBytes + header_bytes + kCrcBytes)
    return fail(Code::kCorrupt, "an event of {} bytes with {} bytes of headers; at most {} and {}", total,
                header_bytes, kFrameBytesMax, kFrameHeaderBytesMax);
  if (pending_.size() < total) return std::nullopt;
  const std::string_view frame = std::string_view(pending_).substr(0, total);
  if (get(frame, total - kCrcBytes, 4) != crc_of(frame.substr(0, total - kCrcBytes)))
    return fail(Code::kCorrupt, "the checksum of an event is wrong");
  EventMessage message;
  CAPSTAN_TRY(message.headers, decode_headers(frame.substr(kPreludeBytes, header_bytes)));
  message.payload =
      frame.substr(kPreludeBytes + header_bytes, total - kPreludeBytes - header_bytes - kCrcBytes);
  pending_.erase(0, total);
  return message;
}

}  // namespace capstan::gateway::bedrock

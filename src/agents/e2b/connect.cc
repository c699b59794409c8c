#include "agents/e2b/connect.h"

namespace capstan::agents::e2b {
namespace {

constexpr std::size_t kPrefixBytes = 5;
constexpr unsigned char kCompressed = 1, kEnd = 2;

struct Wire {
  int status;
  std::string_view code;
};
Wire wire_of(Code code) {
  switch (code) {
    case Code::kInvalid: return {400, "invalid_argument"};
    case Code::kNotFound: return {404, "not_found"};
    case Code::kConflict: return {400, "failed_precondition"};
    case Code::kDenied: return {403, "permission_denied"};
    case Code::kExhausted: return {429, "resource_exhausted"};
    case Code::kUnavailable: return {502, "unavailable"};
    case Code::kTimeout: return {504, "deadline_exceeded"};
    case Code::kCancelled: return {499, "canceled"};
    case Code::kUnsupported: return {501, "unimplemented"};
    case Code::kIo:
    case Code::kCorrupt: break;
  }
  return {500, "internal"};
}

std::string framed(unsigned char flags, std::string_view message) {
  std::string out;
  out.reserve(kPrefixBytes + message.size());
  out.push_back(static_cast<char>(flags));
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(message.size() >> shift & 0xFF));
  out += message;
  return out;
}

}  // namespace

bool is_stream(const http::Request& request) {
  return request.headers.get("content-type").starts_with("application/connect+");
}

Result<std::vector<Json>> read_messages(const http::Request& request) {
  if (!request.headers.get("content-type").starts_with("application/connect+json"))
    return fail(Code::kUnsupported, "a stream must be application/connect+json");
  std::vector<Json> messages;
  std::string_view rest = request.body;
  while (!rest.empty()) {
    if (rest.size() < kPrefixBytes) return fail(Code::kInvalid, "the stream ends inside a frame's head");
    std::size_t size = 0;
    for (std::size_t i = 1; i < kPrefixBytes; ++i) size = size << 8 | static_cast<unsigned char>(rest[i]);
    const auto flags = static_cast<unsigned char>(rest[0]);
    rest.remove_prefix(kPrefixBytes);
    if (size > rest.size()) return fail(Code::kInvalid, "the stream ends inside a frame of {} bytes", size);
    if ((flags & kCompressed) != 0) return fail(Code::kUnsupported, "compressed frames are not supported");
    if ((flags & kEnd) == 0) {
      CAPSTAN_TRY(Json message, Json::parse(rest.substr(0, size)));
      messages.push_back(std::move(message));
    }
    rest.remove_prefix(size);
  }
  return messages;
}

Result<Json> read_message(const http::Request& request) {
  if (is_stream(request)) {
    CAPSTAN_TRY(auto messages, read_messages(request));
    if (messages.size() != 1) return fail(Code::kInvalid, "{} messages; this call takes one", messages.size());
    return std::move(messages[0]);
  }
  if (!request.headers.get("content-type").starts_with("application/json"))
    return fail(Code::kUnsupported, "this server speaks Connect with JSON (application/json)");
  return Json::parse(request.body.empty() ? "{}" : std::string_view(request.body));
}

http::Headers stream_headers() { return {{"content-type", "application/connect+json"}}; }
std::string frame(const Json& message) { return framed(0, message.dump()); }
std::string frame_text(std::string_view json) { return framed(0, json); }

std::string end_frame(const std::optional<Error>& error) {
  return error ? end_frame(wire_of(error->code).code, error->message) : framed(kEnd, "{}");
}

std::string end_frame(std::string_view code, std::string_view message) {
  return framed(kEnd, Json::object({{"error", Json::object({{"code", code}, {"message", message}})}}).dump());
}

http::Response refusal(const http::Request& request, int status, std::string_view code, std::string_view message) {
  // A stream answers 200 and says it in its last frame; what stands before it (502: no sandbox) says it by status.
  if (is_stream(request) && status != 502)
    return {.status = 200, .headers = stream_headers(), .body = end_frame(code, message)};
  return http::Response::json(status, Json::object({{"code", code}, {"message", message}}));
}

http::Response refusal(const http::Request& request, const Error& error) {
  const Wire wire = wire_of(error.code);
  return refusal(request, wire.status, wire.code, error.message);
}

}  // namespace capstan::agents::e2b

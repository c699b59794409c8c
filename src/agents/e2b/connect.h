// The Connect protocol, JSON codec: unary calls and streams of framed messages, and its errors.
//
//   CAPSTAN_TRY(Json request, read_message(http_request));       // of either kind of call
//   writer->respond(Response::json(200, answer));                // unary
//   writer->start(200, stream_headers()); writer->write(frame(message)); writer->write(end_frame()); writer->finish();
//
// Source: connectrpc.com/docs/protocol. A frame is a byte of flags (2: the last), four of length, big-endian, and the
// message. Compression and the binary codec are refused with what would be right. Threads: pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "http/message.h"

namespace capstan::agents::e2b {

// The message of a unary call or the only one of a server-streaming call.
Result<Json> read_message(const http::Request& request);
// All messages of a client-streaming call.
Result<std::vector<Json>> read_messages(const http::Request& request);
bool is_stream(const http::Request& request);

http::Headers stream_headers();
std::string frame(const Json& message);
std::string frame_text(std::string_view json);
std::string end_frame(const std::optional<Error>& error = std::nullopt);
std::string end_frame(std::string_view code, std::string_view message);

// A refusal of a call, unary or streaming, before its first message.
http::Response refusal(const http::Request& request, const Error& error);
http::Response refusal(const http::Request& request, int status, std::string_view code, std::string_view message);

}  // namespace capstan::agents::e2b

// Header fields of a message as nghttp2 takes them. Private to http/.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <string_view>

namespace capstan::http {

// A view; nghttp2 copies it when it is submitted, and makes names lower case.
inline nghttp2_nv http2_field(std::string_view name, std::string_view value, std::uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), flags};
}

// Of HTTP/1.1's connections, not to be sent over HTTP/2 (RFC 9113, 8.2.2); `name` in lower case.
inline bool is_connection_field(std::string_view name) {
  return name == "connection" || name == "transfer-encoding" || name == "keep-alive" || name == "upgrade";
}

}  // namespace capstan::http

// What a program asks a proxy for: the head of its first request.
//
//   CONNECT pypi.org:443 HTTP/1.1            → a tunnel
//   GET http://example.com/a?b HTTP/1.1      → a request, sent on as "GET /a?b" to example.com:80
//
// Threads: values.  Failure: kInvalid, with what would be right.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::agents {

inline constexpr std::size_t kProxyHeadBytesMax = 16 << 10;

struct ProxyRequest {
  std::string host{};  // lower case, without brackets or a dot at its end
  std::uint16_t port = 0;
  bool tunnel = false;   // CONNECT
  std::string head{};    // to be sent to the host, unless it is a tunnel: ends the connection after one answer
};

// `head`: up to and with the empty line.
Result<ProxyRequest> parse_proxy_request(std::string_view head);

}  // namespace capstan::agents

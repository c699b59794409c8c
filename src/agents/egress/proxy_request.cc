// How it works: a request that is sent on loses what is meant for this hop, and says "Connection: close", so that a
// connection to a host serves that host alone.
#include "agents/egress/proxy_request.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::string_view kOfThisHop[] = {"connection", "keep-alive", "proxy-connection", "proxy-authorization",
                                           "host",       "te",         "upgrade",          "http2-settings"};

Result<void> take_authority(std::string_view authority, std::uint16_t port_unless_named, ProxyRequest& out) {
  const auto wrong = [&] { return fail(Code::kInvalid, "'{}' is no host and port", authority); };
  std::string_view host = authority;
  out.port = port_unless_named;
  const std::size_t colon = authority.rfind(':');
  if (colon != authority.npos && !authority.ends_with(']')) {
    host = authority.substr(0, colon);
    const auto port = parse_int(authority.substr(colon + 1));
    if (!port || *port < 1 || *port > 65535) return wrong();
    out.port = static_cast<std::uint16_t>(*port);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != host.npos) {
    return wrong();
  }
  out.host = to_lower(host);
  if (out.host.ends_with('.')) out.host.pop_back();
  if (out.host.empty() || out.port == 0) return wrong();
  return {};
}

}  // namespace

Result<ProxyRequest> parse_proxy_request(std::string_view head) {
  constexpr std::string_view kScheme = "http://", kUsage = "; this proxy takes CONNECT host:port and http:// addresses";
  std::vector<std::string_view> lines;
  for (std::string_view line : split(head.substr(0, head.size() - 4), '\n')) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_of(std::string_view("\r\0", 2)) != line.npos) return fail(Code::kInvalid, "the request is malformed");
    lines.push_back(line);
  }
  const auto words = split(lines[0], ' ');
  if (words.size() != 3 || words[0].empty() || !words[2].starts_with("HTTP/1."))
    return fail(Code::kInvalid, "the request's first line is malformed{}", kUsage);
  ProxyRequest out{.tunnel = words[0] == "CONNECT"};
  if (out.tunnel) {
    CAPSTAN_CHECK(take_authority(words[1], 0, out));
    return out;
  }
  if (to_lower(words[1].substr(0, kScheme.size())) != kScheme)
    return fail(Code::kInvalid, "'{}' is no http:// address{}", words[1].substr(0, 100), kUsage);
  const std::string_view rest = words[1].substr(kScheme.size());
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?#"));
  CAPSTAN_CHECK(take_authority(authority, 80, out));
  std::string path(rest.substr(authority.size()));
  if (!path.starts_with('/')) path.insert(0, 1, '/');
  out.head = fmt::format("{} {} {}\r\nHost: {}\r\nConnection: close\r\n", words[0], path, words[2], authority);
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const std::size_t colon = lines[i].find(':');
    if (colon == 0 || colon == lines[i].npos || lines[i].substr(0, colon).find_first_of(" \t") != lines[i].npos)
      return fail(Code::kInvalid, "a header of the request is malformed");
    if (std::ranges::find(kOfThisHop, to_lower(lines[i].substr(0, colon))) != std::end(kOfThisHop)) continue;
    out.head += fmt::format("{}\r\n", lines[i]);
  }
  out.head += "\r\n";
  return out;
}

}  // namespace capstan::agents

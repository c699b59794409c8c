// An IP address, and whether it is a place on the public internet.
//
//   const auto address = Address::parse("10.0.0.5");   // also "::1" and "[::1]"
//   if (!address->is_public()) …
//
// Threads: values.
#pragma once

#include <netinet/in.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace capstan::agents {

struct Address {
  std::array<std::uint8_t, 16> bytes{};  // one of version 4 as ::ffff:a.b.c.d

  static std::optional<Address> parse(std::string_view text);  // as people write it, nothing else ("127.1" is no address)
  static std::optional<Address> of(const sockaddr& socket_address);

  bool is_version_4() const;
  // False for private, loopback, link-local, shared, reserved and documentation ranges, for ranges that lead to version 4
  // by translation, for multicast, and for addresses at which clouds keep metadata and credentials.
  bool is_public() const;
  std::string text() const;
  // To connect to; the size of what is set.
  socklen_t fill(std::uint16_t port, sockaddr_storage& out) const;

  auto operator<=>(const Address&) const = default;
};

// Those of this host's interfaces.
std::vector<Address> own_addresses();

}  // namespace capstan::agents

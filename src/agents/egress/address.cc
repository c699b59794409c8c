// How it works: version 6 is public by an allow list (2000::/3 less what is special in it), version 4 by a list of what is
// special (IANA's registry of special-purpose addresses).
#include "agents/egress/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace capstan::agents {
namespace {

constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct Range4 {
  std::uint32_t first;
  int bits;
};
constexpr std::uint32_t v4(unsigned a, unsigned b, unsigned c, unsigned d) { return a << 24 | b << 16 | c << 8 | d; }
constexpr Range4 kSpecial4[] = {{v4(0, 0, 0, 0), 8},       {v4(10, 0, 0, 0), 8},     {v4(100, 64, 0, 0), 10},
                                {v4(127, 0, 0, 0), 8},     {v4(169, 254, 0, 0), 16}, {v4(172, 16, 0, 0), 12},
                                {v4(192, 0, 0, 0), 24},    {v4(192, 0, 2, 0), 24},   {v4(192, 88, 99, 0), 24},
                                {v4(192, 168, 0, 0), 16},  {v4(198, 18, 0, 0), 15},  {v4(198, 51, 100, 0), 24},
                                {v4(203, 0, 113, 0), 24},  {v4(224, 0, 0, 0), 3},
                                {v4(168, 63, 129, 16), 32}};  // a cloud's metadata at an address that looks public

struct Range6 {
  std::uint8_t first[4];
  int bits;
};
// Within 2000::/3: protocol assignments (Teredo among them), documentation, 6to4, documentation again.
constexpr Range6 kSpecial6[] = {
    {{0x20, 0x01, 0x00, 0x00}, 23}, {{0x20, 0x01, 0x0d, 0xb8}, 32}, {{0x20, 0x02, 0, 0}, 16}, {{0x3f, 0xff, 0, 0}, 20}};

bool same_bits(std::uint32_t a, std::uint32_t b, int bits) { return ((a ^ b) >> (32 - bits)) == 0; }
std::uint32_t word(const std::uint8_t* bytes) { return v4(bytes[0], bytes[1], bytes[2], bytes[3]); }

}  // namespace

std::optional<Address> Address::parse(std::string_view given) {
  const bool bracketed = given.size() > 2 && given.front() == '[' && given.back() == ']';
  const std::string text(bracketed ? given.substr(1, given.size() - 2) : given);
  Address address;
  if (::inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) return address;
  std::memcpy(address.bytes.data(), kMapped, sizeof kMapped);
  if (!bracketed && ::inet_pton(AF_INET, text.c_str(), address.bytes.data() + sizeof kMapped) == 1) return address;
  return std::nullopt;
}

std::optional<Address> Address::of(const sockaddr& given) {
  Address address;
  if (given.sa_family == AF_INET6) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6&>(given).sin6_addr, 16);
    return address;
  }
  if (given.sa_family != AF_INET) return std::nullopt;
  std::memcpy(address.bytes.data(), kMapped, sizeof kMapped);
  std::memcpy(address.bytes.data() + sizeof kMapped, &reinterpret_cast<const sockaddr_in&>(given).sin_addr, 4);
  return address;
}

bool Address::is_version_4() const { return std::memcmp(bytes.data(), kMapped, sizeof kMapped) == 0; }

bool Address::is_public() const {
  if (is_version_4()) {
    const std::uint32_t own = word(bytes.data() + sizeof kMapped);
    return std::ranges::none_of(kSpecial4, [&](const Range4& range) { return same_bits(own, range.first, range.bits); });
  }
  const std::uint32_t own = word(bytes.data());
  if ((bytes[0] & 0xe0) != 0x20) return false;
  return std::ranges::none_of(kSpecial6, [&](const Range6& range) { return same_bits(own, word(range.first), range.bits); });
}

std::string Address::text() const {
  char out[INET6_ADDRSTRLEN] = {};
  if (is_version_4())
    ::inet_ntop(AF_INET, bytes.data() + sizeof kMapped, out, sizeof out);
  else
    ::inet_ntop(AF_INET6, bytes.data(), out, sizeof out);
  return out;
}

socklen_t Address::fill(std::uint16_t port, sockaddr_storage& out) const {
  out = {};
  if (is_version_4()) {
    auto& address = reinterpret_cast<sockaddr_in&>(out);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    std::memcpy(&address.sin_addr, bytes.data() + sizeof kMapped, 4);
    return sizeof address;
  }
  auto& address = reinterpret_cast<sockaddr_in6&>(out);
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  std::memcpy(&address.sin6_addr, bytes.data(), 16);
  return sizeof address;
}

std::vector<Address> own_addresses() {
  std::vector<Address> out;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return out;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    const auto address = one->ifa_addr == nullptr ? std::nullopt : Address::of(*one->ifa_addr);
    if (address) out.push_back(*address);
  }
  ::freeifaddrs(list);
  return out;
}

}  // namespace capstan::agents

// SHA-256 (FIPS 180-4), by OpenSSL: checksums of snapshots and checkpoints, hashes of stored keys.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace capstan {

using Digest = std::array<std::uint8_t, 32>;

Digest sha256(std::string_view bytes);
std::string sha256_hex(std::string_view bytes);

// Hashes data that arrives in pieces. Threads: one owner.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(std::span<const std::uint8_t> bytes);
  void update(std::string_view bytes);
  Digest finish();  // once; afterwards only destruction

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Compares secrets without telling by its duration where they differ. Different lengths are unequal.
bool equal_constant_time(std::string_view a, std::string_view b);

}  // namespace capstan

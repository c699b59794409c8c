// Random damage to a valid file, for tests that nothing broken crashes its reader.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "base/assert.h"
#include "base/prng.h"

namespace capstan::engine::testing {

// One to five changes within the first `within` bytes: single bytes, digits, bits, whole 64-bit numbers of a dangerous
// size, pieces taken out or doubled; one in ten is cut short.
inline std::string mutated(std::string bytes, Prng& prng, std::size_t within) {
  constexpr std::uint64_t kSizes[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 62, 1ull << 63, ~0ull, ~0ull - 7};
  for (std::uint64_t i = 0, count = 1 + prng.below(5); i < count && !bytes.empty(); ++i) {
    const std::size_t at = prng.below(std::min(within, bytes.size()));
    switch (prng.below(7)) {
      case 0:
        bytes[at] = static_cast<char>(prng.next());
        break;
      case 1:
        bytes[at] = static_cast<char>('0' + prng.below(10));
        break;
      case 2:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << prng.below(8)));
        break;
      case 3: {
        const std::uint64_t value = kSizes[prng.below(std::size(kSizes))];
        for (std::size_t k = 0; k < 8 && at + k < bytes.size(); ++k) bytes[at + k] = static_cast<char>(value >> (8 * k));
        break;
      }
      case 4:
        bytes.erase(at, 1 + prng.below(8));
        break;
      case 5:
        bytes.insert(at, bytes.substr(at, 1 + prng.below(40)));
        break;
      default:
        bytes[at] = static_cast<char>(bytes[prng.below(std::min(within, bytes.size()))]);
    }
  }
  if (prng.below(10) == 0) bytes.resize(prng.below(bytes.size() + 1));
  return bytes;
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes;
  file.close();
  CAPSTAN_ASSERT(file.good());
}

}  // namespace capstan::engine::testing

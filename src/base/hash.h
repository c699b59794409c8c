// Hashes of text that are the same on every machine, for placing and for recognising. Not for secrets, not against an adversary
// (sha256.h is).
//
//   std::uint64_t key = fnv1a("name");
//   Fingerprint print;  print.add(event_text);  std::string hex = print.text();
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace capstan {

// FNV-1a, 64 bits (Fowler, Noll, Vo). Its low bits are weak: mix or fold it before taking a remainder by a power of two.
inline std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

// A running hash of a run's events, eight bytes at a time.
class Fingerprint {
 public:
  void add(std::string_view text) {
    std::uint64_t hash = hash_ + text.size();
    while (text.size() >= sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data(), sizeof word);
      hash = (hash ^ word) * 0x94D049BB133111EBu;
      hash ^= hash >> 29;
      text.remove_prefix(sizeof word);
    }
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0xBF58476D1CE4E5B9u;
    hash_ = hash ^ (hash >> 32);
  }
  std::string text() const { return fmt::format("{:016x}", hash_); }  // 16 hexadecimal digits

 private:
  std::uint64_t hash_ = 0x9E3779B97F4A7C15u;
};

}  // namespace capstan

// EventHash: a running 64-bit hash of text, for the fingerprint of a run. Fast, the same on every machine of one byte order, and
// nothing but that: not for secrets, not against an adversary.
//
//   hash.add(event_text);  std::string print = hash.text();
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace capstan::sim {

class EventHash {
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

}  // namespace capstan::sim

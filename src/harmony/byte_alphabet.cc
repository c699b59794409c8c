// Two tables made once: byte -> code point, and (code point < 0x144) -> byte.
#include "harmony/byte_alphabet.h"

#include <array>

namespace capstan::harmony {
namespace {

constexpr char32_t kCodePointEnd = 0x100 + 68;

struct Tables {
  std::array<char32_t, 256> code_point;
  std::array<std::int16_t, kCodePointEnd> byte;
};

constexpr Tables make_tables() {
  Tables tables{};
  tables.byte.fill(-1);
  char32_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    tables.code_point[b] = printable ? static_cast<char32_t>(b) : next++;
    tables.byte[tables.code_point[b]] = static_cast<std::int16_t>(b);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

char32_t alphabet_code_point(std::uint8_t byte) { return kTables.code_point[byte]; }

std::optional<std::string> bytes_from_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    char32_t code_point = first;
    std::size_t length = 1;
    if (first >= 0x80) {  // the alphabet ends below U+0800, so two bytes are the longest
      if ((first & 0xE0) != 0xC0 || i + 1 >= text.size()) return std::nullopt;
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      code_point = (static_cast<char32_t>(first & 0x1F) << 6) | (second & 0x3F);
      length = 2;
    }
    if (code_point >= kCodePointEnd || kTables.byte[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kTables.byte[code_point]));
    i += length;
  }
  return bytes;
}

std::string alphabet_from_bytes(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    const char32_t code_point = kTables.code_point[static_cast<unsigned char>(byte)];
    if (code_point < 0x80) {
      text.push_back(static_cast<char>(code_point));
    } else {
      text.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
      text.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return text;
}

}  // namespace capstan::harmony

// The GPT-2 byte alphabet: a reversible map between the 256 bytes and 256 printable Unicode characters.
//
// Byte-level vocabularies in tokenizer.json are written in it ("Ġthe" is " the"). Bytes 33..126, 161..172 and
// 174..255 stand for themselves; the other 68 follow from U+0100 in ascending order.
// Source: openai/gpt-2, encoder.py, bytes_to_unicode.  Threads: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace capstan::harmony {

// The code point that stands for `byte`.
char32_t alphabet_code_point(std::uint8_t byte);

// "Ġthe" -> " the"; nullopt if a character is outside the alphabet or the text is not UTF-8.
std::optional<std::string> bytes_from_alphabet(std::string_view text);

// " the" -> "Ġthe".
std::string alphabet_from_bytes(std::string_view bytes);

}  // namespace capstan::harmony

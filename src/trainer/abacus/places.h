// Places: the notation of the workings. A letter names a decimal place, so that every digit can be found by
// name.
//
//   labelled(9386, 5, 'A')   "E0D9C3B8A6"     place A = ones, B = tens, …, leading zeros to the width
//   add_column(…)            "A7+P6+0=1a3"    7 + 6 + carry 0 = 13: carry 1, digit a of the result is 3
//
// Within one working a letter names one digit of one number only: the operands take capitals from A, P, G, K
// or U upwards, results take small letters. Pure; threads: any.
#pragma once

#include <cstdint>
#include <string>

namespace capstan::trainer::abacus {

inline constexpr char kFirstLetters[] = {'A', 'P', 'G', 'K', 'U'};  // ones of the first, second, … operand

inline int digit_at(std::int64_t value, int place) {
  for (; place > 0; --place) value /= 10;
  return static_cast<int>(value % 10);
}

inline void append_digit(std::string& text, int digit) { text += static_cast<char>('0' + digit); }

inline std::string labelled(std::int64_t value, int width, char ones) {
  std::string text;
  for (int place = width - 1; place >= 0; --place) {
    text += static_cast<char>(ones + place);
    append_digit(text, digit_at(value, place));
  }
  return text;
}

// Fixed width with leading zeros: "037".
inline std::string padded(std::int64_t value, int width) {
  std::string text;
  for (int place = width - 1; place >= 0; --place) append_digit(text, digit_at(value, place));
  return text;
}

}  // namespace capstan::trainer::abacus

// Multiplication row by row, adding each row to the rows before it; long division with a trial digit.
//
//   347*268
//   C3B4A7*W2V6U8
//   U8 A7*8=56+0+0=5a6 B4*8=32+5+0=3b7 …  d2   row of the ones: product, carry, nothing before it
//   V6 S3R4Q7 Q7*6=42+0+b7=4q9 …               row of the tens: its digits are one place up (Q is B's place),
//                                              and the digit of that place so far, b7, is added
//
//   D5C2B9A1/Y3X7
//   D005 0:00+000=000 r005 d0                  bring down; try a digit: 0 x 7 + 0 x 30; remainder; quotient's
//   digit B159 5:35+150=185>                         too much: the line is tried again B159 3:21+090=111
//   r048>                    too little
#include <array>

#include "base/assert.h"
#include "trainer/abacus/places.h"
#include "trainer/abacus/working.h"

namespace capstan::trainer::abacus {
namespace {

// The letters of the rows' places (index = place of the result) and of their results.
constexpr std::array<char, 3> kRowLetters = {'A', 'P', 'G'};
constexpr std::array<char, 3> kRowResults = {'a', 'p', 'g'};

}  // namespace

std::string work_multiplication(std::int64_t x, std::int64_t y) {
  const int x_digits = digit_count(x), y_digits = digit_count(y);
  CAPSTAN_ASSERT(x_digits <= 3 && y_digits <= 3);
  std::string text = std::to_string(x) + "*" + std::to_string(y) + "\n";
  text += labelled(x, x_digits, 'A') + "*" + labelled(y, y_digits, 'U') + "\n";
  std::array<int, 6> so_far{};
  std::array<char, 6> letter_of_place{};
  for (int row = 0; row < y_digits; ++row) {
    const int multiplier = digit_at(y, row);
    const char ones = kRowLetters[static_cast<std::size_t>(row)];
    const char results = kRowResults[static_cast<std::size_t>(row)];
    text += static_cast<char>('U' + row);
    append_digit(text, multiplier);
    if (row > 0) text += " " + labelled(x, x_digits, static_cast<char>(ones + row));
    int carry = 0;
    for (int i = 0; i < x_digits; ++i) {
      const auto place = static_cast<std::size_t>(i + row);
      const int product = digit_at(x, i) * multiplier;
      text += ' ';
      text += static_cast<char>(ones + i + row);
      append_digit(text, digit_at(x, i));
      text += '*';
      append_digit(text, multiplier);
      text += "=" + padded(product, 2) + "+";
      append_digit(text, carry);
      text += '+';
      if (row > 0) text += letter_of_place[place];
      append_digit(text, so_far[place]);
      const int sum = product + carry + so_far[place];
      carry = sum / 10;
      so_far[place] = sum % 10;
      letter_of_place[place] = static_cast<char>(results + i + row);
      text += '=';
      append_digit(text, carry);
      text += letter_of_place[place];
      append_digit(text, so_far[place]);
    }
    const auto top = static_cast<std::size_t>(x_digits + row);
    so_far[top] = carry;
    letter_of_place[top] = static_cast<char>(results + x_digits + row);
    text += ' ';
    text += letter_of_place[top];
    append_digit(text, carry);
    text += '\n';
  }
  for (int place = x_digits + y_digits - 1; place >= 0; --place) {
    text += letter_of_place[static_cast<std::size_t>(place)];
    append_digit(text, so_far[static_cast<std::size_t>(place)]);
  }
  return text + "\n" + std::to_string(x * y);
}

Working work_division(std::int64_t dividend, std::int64_t divisor, Prng& rng) {
  CAPSTAN_ASSERT(dividend >= 0 && dividend <= 99999 && divisor >= 1 && divisor <= 99);
  const int digits = digit_count(dividend);
  Working working;
  std::string& text = working.text;
  text = std::to_string(dividend) + "/" + std::to_string(divisor) + "\n";
  text += labelled(dividend, digits, 'A') + "/" + labelled(divisor, 2, 'X') + "\n";
  std::int64_t remainder = 0;
  for (int place = digits - 1; place >= 0; --place) {
    const std::int64_t current = remainder * 10 + digit_at(dividend, place);
    const std::int64_t right = current / divisor;
    std::int64_t tried = right;
    if (rng.below(5) == 0) {
      tried = right + (rng.below(2) == 0 ? 1 : -1) * (rng.below(5) == 0 ? 2 : 1);
      if (tried < 0 || tried > 9) tried = right;
    }
    for (bool corrected = false;; corrected = true) {
      text += static_cast<char>('A' + place);
      text += padded(current, 3) + " ";
      if (tried != right && !corrected) working.not_scored.push_back(text.size());
      const std::int64_t product = tried * divisor;
      append_digit(text, static_cast<int>(tried));
      text += ":" + padded(tried * (divisor % 10), 2) + "+" + padded(tried * (divisor / 10) * 10, 3) + "=";
      text += padded(product, 3);
      if (product <= current) text += " r" + padded(current - product, 3);
      if (tried == right) break;
      text += ">\n";
      tried += tried > right ? -1 : 1;
    }
    remainder = current - right * divisor;
    text += ' ';
    text += static_cast<char>('a' + place);
    append_digit(text, static_cast<int>(right));
    text += '\n';
  }
  text += labelled(dividend / divisor, digits, 'a') + " r" + padded(remainder, 3);
  return working;
}

}  // namespace capstan::trainer::abacus

// Addition, sums, subtraction and comparison: columns from the ones upwards. A step repeats the digits that
// it uses beside their letters, so finding them and calculating with them are separate, small tasks.
#include "trainer/abacus/working.h"

#include <algorithm>

#include "base/assert.h"
#include "trainer/abacus/places.h"

namespace capstan::trainer::abacus {
namespace {

int common_width(const std::vector<std::int64_t>& terms) {
  int width = 1;
  for (const std::int64_t term : terms) width = std::max(width, digit_count(term));
  return width;
}

// "1a3": carry or borrow, place, digit.
void append_result(std::string& text, int carry, char letter, int digit) {
  append_digit(text, carry);
  text += letter;
  append_digit(text, digit);
}

void append_term(std::string& text, const LabelledNumber& number, int place) {
  text += static_cast<char>(number.ones + place);
  append_digit(text, digit_at(number.value, place));
}

}  // namespace

std::string work_addition(std::int64_t x, std::int64_t y) {
  const int width = common_width({x, y});
  std::string text = std::to_string(x) + "+" + std::to_string(y) + "\n";
  text += labelled(x, width, 'A') + "+" + labelled(y, width, 'P') + "\n";
  int carry = 0;
  for (int place = 0; place < width; ++place) {
    if (place > 0) text += ' ';
    append_term(text, {x, 'A'}, place);
    text += '+';
    append_term(text, {y, 'P'}, place);
    text += '+';
    append_digit(text, carry);
    const int sum = digit_at(x, place) + digit_at(y, place) + carry;
    carry = sum / 10;
    text += '=';
    append_result(text, carry, static_cast<char>('a' + place), sum % 10);
  }
  return text + "\n" + labelled(x + y, width + 1, 'a') + "\n" + std::to_string(x + y);
}

std::string work_sum(const std::vector<std::int64_t>& terms) {
  CAPSTAN_ASSERT(terms.size() >= 2 && terms.size() <= std::size(kFirstLetters));
  const int width = common_width(terms);
  std::string text, digits;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (i > 0) text += '+', digits += '+';
    text += std::to_string(terms[i]);
    digits += labelled(terms[i], width, kFirstLetters[i]);
    total += terms[i];
  }
  text += "\n" + digits + "\n";
  int carry = 0;
  for (int place = 0; place < width; ++place) {
    if (place > 0) text += ' ';
    append_term(text, {terms[0], kFirstLetters[0]}, place);
    int sum = digit_at(terms[0], place);
    for (std::size_t i = 1; i < terms.size(); ++i) {
      text += '+';
      append_term(text, {terms[i], kFirstLetters[i]}, place);
      sum += digit_at(terms[i], place);
      text += '=';
      text += padded(sum, 2);
    }
    text += '+';
    append_digit(text, carry);
    sum += carry;
    carry = sum / 10;
    text += '=';
    append_result(text, carry, static_cast<char>('a' + place), sum % 10);
  }
  return text + "\n" + labelled(total, width + 1, 'a') + "\n" + std::to_string(total);
}

Scan scan_places(const LabelledNumber& x, const LabelledNumber& y, int width) {
  Scan scan;
  for (int place = width - 1; place >= 0 && scan.order == 0; --place) {
    if (!scan.text.empty()) scan.text += ' ';
    const int a = digit_at(x.value, place), b = digit_at(y.value, place);
    append_term(scan.text, x, place);
    scan.order = a < b ? -1 : a > b ? 1 : 0;
    scan.text += "<=>"[scan.order + 1];
    append_term(scan.text, y, place);
  }
  return scan;
}

std::string subtract_columns(const LabelledNumber& larger, const LabelledNumber& smaller, int width,
                             char result_ones) {
  std::string text;
  int borrow = 0;
  for (int place = 0; place < width; ++place) {
    if (place > 0) text += ' ';
    append_term(text, larger, place);
    text += '-';
    append_term(text, smaller, place);
    text += '-';
    append_digit(text, borrow);
    int difference = digit_at(larger.value, place) - digit_at(smaller.value, place) - borrow;
    borrow = difference < 0 ? 1 : 0;
    difference += 10 * borrow;
    text += '=';
    append_result(text, borrow, static_cast<char>(result_ones + place), difference);
  }
  CAPSTAN_ASSERT(borrow == 0);
  return text;
}

std::string work_subtraction(std::int64_t x, std::int64_t y) {
  const int width = common_width({x, y});
  std::string text = std::to_string(x) + "-" + std::to_string(y) + "\n";
  text += labelled(x, width, 'A') + "-" + labelled(y, width, 'P') + "\n";
  const LabelledNumber first{x, 'A'}, second{y, 'P'};
  const Scan scan = scan_places(first, second, width);
  text += scan.text + "\n";
  text += scan.order >= 0 ? subtract_columns(first, second, width, 'a')
                          : subtract_columns(second, first, width, 'a');
  text += "\n" + labelled(std::max(x, y) - std::min(x, y), width, 'a');
  return text + "\n" + std::to_string(x - y);
}

std::string work_comparison(const std::vector<std::int64_t>& terms, bool wants_larger) {
  const int width = common_width(terms);
  std::string text = wants_larger ? "max " : "min ", digits;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (i > 0) text += ',', digits += ',';
    text += std::to_string(terms[i]);
    digits += labelled(terms[i], width, kFirstLetters[i]);
  }
  text += "\n" + digits + "\n";
  LabelledNumber best{terms[0], kFirstLetters[0]};
  for (std::size_t i = 1; i < terms.size(); ++i) {
    const LabelledNumber next{terms[i], kFirstLetters[i]};
    const Scan scan = scan_places(best, next, width);
    text += scan.text + "\n";
    if (scan.order == 0) return text + "they are equal";
    if ((scan.order < 0) == wants_larger) best = next;
  }
  return text + std::to_string(best.value);
}

Working make_working(const Problem& problem, Prng& rng) {
  const std::vector<std::int64_t>& terms = problem.terms;
  Working working;
  switch (problem.kind) {
    case Kind::kAddition:
      working.text = work_addition(terms[0], terms[1]);
      break;
    case Kind::kSubtraction:
      working.text = work_subtraction(terms[0], terms[1]);
      break;
    case Kind::kMultiplication:
      working.text = work_multiplication(terms[0], terms[1]);
      break;
    case Kind::kDivision:
      if (terms[1] == 0) {
        working.text = canonical(problem);
      } else {
        working = work_division(terms[0], terms[1], rng);
      }
      working.text += "\n" + answer(problem);
      break;
    case Kind::kComparison:
      working.text = work_comparison(terms, problem.wants_larger);
      break;
    case Kind::kSum:
      working.text = work_sum(terms);
      break;
    case Kind::kDays:
      working.text = work_days(terms[0], terms[1]);
      break;
    case Kind::kConversion: {
      const std::int64_t factor = kConversions[static_cast<std::size_t>(problem.conversion)].factor;
      const std::int64_t value = terms[0];
      const std::string name = canonical(problem) + "\n";
      const bool decimal_factor = factor != 60 && factor % 10 == 0;
      if (decimal_factor) {
        const int zeros = digit_count(factor) - 1;
        working.text = name + std::to_string(value) + (problem.to_small ? "*" : "/") + std::to_string(factor);
        if (!problem.to_small) {
          const std::string digits = labelled(value, digit_count(value), 'A');
          working.text +=
              "\n" + digits + "\n" + digits.substr(0, digits.size() - 2 * static_cast<std::size_t>(zeros));
        }
      } else if (problem.to_small) {
        working.text = name + work_multiplication(value, factor);
      } else {
        working = work_division(value, factor, rng);
        working.text = name + working.text;
        for (std::size_t& byte : working.not_scored) byte += name.size();
      }
      working.text += "\n" + answer(problem);
      break;
    }
    case Kind::kPython:
    case Kind::kTooLong:
    case Kind::kOther:
      break;
  }
  CAPSTAN_ASSERT(working.text.size() <= kWorkingBytesMax);
  return working;
}

}  // namespace capstan::trainer::abacus

// How problems are drawn. Every number starts from its digit count; a share of the operands is then made of
// few different digits (0 and 9, or one digit), since those need long carries and are hard to copy. Pairs for
// subtraction and comparison often share their first digits.
#include "trainer/abacus/problem.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"
#include "base/assert.h"
#include "trainer/abacus/other_texts.h"

namespace capstan::trainer::abacus {
namespace {

constexpr std::array<std::string_view, kKinds> kNames = {
    "addition",   "subtraction", "multiplication", "division", "comparison", "sum",
    "conversion", "days",        "python",         "too_long", "other"};

std::int64_t power_of_ten(int exponent) {
  std::int64_t power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

// A number with exactly `digits` digits (one digit: 0 to 9).
std::int64_t number_of_digits(int digits, Prng& rng, Numbers numbers) {
  const std::int64_t low = digits == 1 ? 0 : power_of_ten(digits - 1);
  const std::uint64_t shape = rng.below(10);
  if (shape >= 3 || numbers == Numbers::kPlain) return rng.between(low, power_of_ten(digits) - 1);
  // Few different digits.
  const int first = static_cast<int>(rng.between(1, 9));
  const int second = static_cast<int>(rng.below(10));
  std::int64_t value = 0;
  for (int i = 0; i < digits; ++i) {
    int digit = first;
    if (i > 0 && shape == 0) digit = rng.below(2) == 0 ? first : second;
    if (i > 0 && shape == 1) digit = rng.below(2) == 0 ? 0 : 9;
    if (i > 0 && shape == 2) digit = rng.below(4) == 0 ? second : 0;
    value = value * 10 + digit;
  }
  return value;
}

std::int64_t number_up_to(int digits_max, Prng& rng, Numbers numbers) {
  return number_of_digits(static_cast<int>(rng.between(1, digits_max)), rng, numbers);
}

// Two numbers; often of similar length, sometimes with the same first digits.
std::vector<std::int64_t> draw_pair(int digits_max, Prng& rng, bool close, Numbers numbers) {
  std::int64_t first = number_up_to(digits_max, rng, numbers);
  std::int64_t second = number_up_to(digits_max, rng, numbers);
  if (numbers == Numbers::kPlain) return {first, second};
  const std::uint64_t shape = rng.below(10);
  if (shape < 4) {
    const int digits = static_cast<int>(rng.between(1 + digits_max / 2, digits_max));
    first = number_of_digits(digits, rng, numbers);
    second = number_of_digits(std::max(1, digits - static_cast<int>(rng.below(2))), rng, numbers);
  }
  if (close && shape >= 8) {
    const int digits = digit_count(first);
    const std::int64_t tail = power_of_ten(static_cast<int>(rng.between(1, digits)));
    second = first / tail * tail + rng.between(0, tail - 1);
  }
  if (rng.below(2) == 0) std::swap(first, second);
  return {first, second};
}

int weighted(Prng& rng, std::initializer_list<int> weights) {
  int total = 0;
  for (const int weight : weights) total += weight;
  auto left = static_cast<int>(rng.below(static_cast<std::uint64_t>(total)));
  int index = 0;
  for (const int weight : weights) {
    if (left < weight) return index;
    left -= weight;
    ++index;
  }
  return index;
}

std::vector<std::int64_t> draw_days(Prng& rng) {
  const std::int64_t from = rng.between(0, kDaysInRange - 1);
  static constexpr std::array<std::int64_t, 5> kGaps = {9, 99, 999, 9999, 36524};
  const std::int64_t gap = rng.between(1, kGaps[static_cast<std::size_t>(weighted(rng, {1, 2, 4, 3, 2}))]);
  std::int64_t to = from + gap;
  if (to >= kDaysInRange) to = from - gap >= 0 ? from - gap : rng.between(0, kDaysInRange - 1);
  if (rng.below(3) != 0) return {std::min(from, to), std::max(from, to)};
  return {std::max(from, to), std::min(from, to)};
}

// Arithmetic that no working covers: operands of 7 to 15 digits, or a product of more than 3 digits, or a
// division out of range.
void draw_long(Problem& problem, Prng& rng, Numbers numbers) {
  problem.sign = "+-*/"[weighted(rng, {3, 3, 5, 1})];
  int first = static_cast<int>(rng.between(7, 15));
  int second = static_cast<int>(rng.between(7, 15));
  if (rng.below(3) == 0) second = static_cast<int>(rng.between(1, 15));
  if (problem.sign == '*' && rng.below(3) == 0) {
    first = static_cast<int>(rng.between(4, 9));
    second = static_cast<int>(rng.between(1, 6));
  }
  if (problem.sign == '/') {
    const bool long_divisor = rng.below(2) == 0;
    first = static_cast<int>(rng.between(long_divisor ? 1 : 6, 15));
    second = static_cast<int>(rng.between(long_divisor ? 3 : 1, 5));
  }
  problem.terms = {number_of_digits(first, rng, numbers), number_of_digits(second, rng, numbers)};
  if (problem.sign == '/' && problem.terms[1] == 0) problem.terms[1] = 7;
  if (problem.sign != '/' && rng.below(2) == 0) std::swap(problem.terms[0], problem.terms[1]);
}

void draw_conversion(Problem& problem, Prng& rng, Numbers numbers) {
  problem.conversion = static_cast<int>(rng.below(kConversions.size()));
  problem.to_small = rng.below(2) == 0;
  const std::int64_t factor = kConversions[static_cast<std::size_t>(problem.conversion)].factor;
  const bool decimal_factor = factor % 10 == 0 && factor != 60;
  std::int64_t large = number_up_to(decimal_factor && problem.to_small ? 4 : 3, rng, numbers);
  if (large == 0) large = 1 + static_cast<std::int64_t>(rng.below(9));
  problem.terms = {problem.to_small ? large : large * factor};
}

std::vector<std::int64_t> draw_division(Prng& rng, Numbers numbers) {
  const int digits = 1 + weighted(rng, {1, 2, 3, 3, 3});
  const std::int64_t divisor = rng.below(5) < 2 ? rng.between(1, 9) : rng.between(10, 99);
  std::int64_t dividend = number_of_digits(digits, rng, numbers);
  if (rng.below(50) == 0) return {dividend, 0};
  if (rng.below(8) == 0) dividend = dividend / divisor * divisor;
  return {dividend, divisor};
}

void draw_comparison(Problem& problem, Prng& rng, Numbers numbers) {
  problem.wants_larger = rng.below(2) == 0;
  problem.terms = draw_pair(6, rng, true, numbers);
  if (rng.below(3) != 0) return;
  problem.terms.push_back(draw_pair(6, rng, true, numbers)[0]);
  while (problem.terms[2] == problem.terms[0] || problem.terms[2] == problem.terms[1]) ++problem.terms[2];
  if (problem.terms[2] > 999999) problem.terms[2] = 0;
  if (problem.terms[0] == problem.terms[1]) problem.terms.pop_back();
}

}  // namespace

std::string_view kind_name(Kind kind) { return kNames[static_cast<std::size_t>(kind)]; }

std::optional<Kind> kind_of_name(std::string_view name) {
  for (int i = 0; i < kKinds; ++i) {
    if (kNames[static_cast<std::size_t>(i)] == name) return static_cast<Kind>(i);
  }
  return std::nullopt;
}

Problem draw_problem(Kind kind, Prng& rng, Numbers numbers) {
  Problem problem;
  problem.kind = kind;
  switch (kind) {
    case Kind::kAddition:
      problem.terms = draw_pair(6, rng, false, numbers);
      break;
    case Kind::kSubtraction:
      problem.terms = draw_pair(6, rng, true, numbers);
      break;
    case Kind::kMultiplication:
      problem.terms = {number_of_digits(1 + weighted(rng, {1, 2, 4}), rng, numbers),
                       number_of_digits(1 + weighted(rng, {1, 2, 3}), rng, numbers)};
      break;
    case Kind::kDivision:
      problem.terms = draw_division(rng, numbers);
      break;
    case Kind::kComparison:
      draw_comparison(problem, rng, numbers);
      break;
    case Kind::kSum:
      for (auto left = rng.between(3, 5); left > 0; --left)
        problem.terms.push_back(number_up_to(4, rng, numbers));
      break;
    case Kind::kConversion:
      draw_conversion(problem, rng, numbers);
      break;
    case Kind::kDays:
      problem.terms = draw_days(rng);
      break;
    case Kind::kPython:
    case Kind::kTooLong:
      draw_long(problem, rng, numbers);
      break;
    case Kind::kOther:
      problem.text = draw_other_text(rng);
      break;
  }
  return problem;
}

std::string canonical(const Problem& problem) {
  std::string line;
  const auto join = [&](std::string_view separator) {
    for (const std::int64_t term : problem.terms) {
      if (!line.empty()) line += separator;
      line += std::to_string(term);
    }
    return line;
  };
  switch (problem.kind) {
    case Kind::kAddition:
    case Kind::kSum:
      return join("+");
    case Kind::kSubtraction:
      return join("-");
    case Kind::kMultiplication:
      return join("*");
    case Kind::kDivision:
      return join("/");
    case Kind::kPython:
    case Kind::kTooLong:
      return join(std::string_view(&problem.sign, 1));
    case Kind::kComparison:
      return (problem.wants_larger ? "max " : "min ") + join(",");
    case Kind::kConversion: {
      const Conversion& row = kConversions[static_cast<std::size_t>(problem.conversion)];
      return fmt::format("{} {} in {}", problem.terms[0], problem.to_small ? row.large : row.small,
                         problem.to_small ? row.small : row.large);
    }
    case Kind::kDays:
      return iso_date(date_of_day(problem.terms[0])) + " to " + iso_date(date_of_day(problem.terms[1]));
    case Kind::kOther:
      return problem.text;
  }
  return line;
}

bool is_held_out(const Problem& problem) {
  return Prng::mix(fnv1a(canonical(problem))) % 64 == 0;
}

std::string with_unit(std::int64_t value, std::string_view unit) {
  if (value == 1 && (unit == "days" || unit == "weeks")) unit.remove_suffix(1);
  return fmt::format("{} {}", value, unit);
}

std::string answer(const Problem& problem) {
  const std::vector<std::int64_t>& terms = problem.terms;
  const auto quotient = [&] {
    if (terms[1] == 0) return std::string(kDivisionByZero);
    return fmt::format("{} remainder {}", terms[0] / terms[1], terms[0] % terms[1]);
  };
  switch (problem.kind) {
    case Kind::kAddition:
    case Kind::kSum: {
      std::int64_t sum = 0;
      for (const std::int64_t term : terms) sum += term;
      return std::to_string(sum);
    }
    case Kind::kSubtraction:
      return std::to_string(terms[0] - terms[1]);
    case Kind::kMultiplication:
      return std::to_string(terms[0] * terms[1]);
    case Kind::kDivision:
      return quotient();
    case Kind::kComparison: {
      if (terms.size() == 2 && terms[0] == terms[1]) return "they are equal";
      const auto [low, high] = std::minmax_element(terms.begin(), terms.end());
      return std::to_string(problem.wants_larger ? *high : *low);
    }
    case Kind::kConversion: {
      const Conversion& row = kConversions[static_cast<std::size_t>(problem.conversion)];
      return problem.to_small ? with_unit(terms[0] * row.factor, row.small)
                              : with_unit(terms[0] / row.factor, row.large);
    }
    case Kind::kDays:
      return with_unit(std::max(terms[0], terms[1]) - std::min(terms[0], terms[1]), "days");
    case Kind::kPython:
      if (problem.sign == '+') return decimal(static_cast<__int128>(terms[0]) + terms[1]);
      if (problem.sign == '-') return decimal(static_cast<__int128>(terms[0]) - terms[1]);
      if (problem.sign == '*') return decimal(static_cast<__int128>(terms[0]) * terms[1]);
      return quotient();
    case Kind::kTooLong:
      return std::string(kTooLongAnswer);
    case Kind::kOther:
      return std::string(kOtherAnswer);
  }
  return {};
}

Date date_of_day(std::int64_t day) {
  CAPSTAN_ASSERT(day >= 0 && day < kDaysInRange);
  static constexpr std::array<int, 12> kLengths = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  Date date;
  // Every fourth year of this century is a leap year.
  while (day >= (date.year % 4 == 0 ? 366 : 365)) day -= date.year++ % 4 == 0 ? 366 : 365;
  for (;; ++date.month) {
    const int leap_day = date.month == 2 && date.year % 4 == 0 ? 1 : 0;
    const int length = kLengths[static_cast<std::size_t>(date.month - 1)] + leap_day;
    if (day < length) break;
    day -= length;
  }
  date.day = static_cast<int>(day) + 1;
  return date;
}

std::string iso_date(const Date& date) {
  return fmt::format("{:04}-{:02}-{:02}", date.year, date.month, date.day);
}

std::string decimal(__int128 value) {
  if (value < 0) return "-" + decimal(-value);
  std::string digits;
  do {
    digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(value % 10)));
    value /= 10;
  } while (value > 0);
  return digits;
}

int digit_count(std::int64_t value) {
  CAPSTAN_ASSERT(value >= 0);
  int digits = 1;
  for (; value >= 10; value /= 10) ++digits;
  return digits;
}

}  // namespace capstan::trainer::abacus

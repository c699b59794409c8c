// Problem: one question that abacus can be asked, as numbers; its answer; and which problems are held back.
//
//   Problem problem = draw_problem(Kind::kAddition, rng);       // any problem of the kind
//   answer(problem)                                             // "57603"
//   is_held_out(problem)                                        // true: only evaluation may use it
//
// The ranges below are abacus's documented abilities. Lengths are drawn evenly by digits, not by value, and
// cases that need many carries, borrows or equal digits are drawn more often than chance would. Pure;
// threads: any.  Cost: microseconds.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.h"

namespace capstan::trainer::abacus {

enum class Kind {
  kAddition,        // two numbers of up to 6 digits
  kSubtraction,     // likewise; the difference may be negative
  kMultiplication,  // up to 3 x 3 digits
  kDivision,        // dividend of up to 5 digits, divisor 0 to 99, with remainder
  kComparison,      // the larger or smaller of two or three numbers of up to 6 digits
  kSum,             // three to five terms of up to 4 digits
  kConversion,      // whole numbers of units, see kConversions
  kDays,            // days between two dates of 2000-01-01 to 2099-12-31
  kPython,          // arithmetic beyond the ranges above, where the caller offers the python tool
  kTooLong,         // the same, where it does not
  kOther,           // a text that is no such problem
};
inline constexpr int kKinds = 11;

// "addition", "subtraction", …, "other".
std::string_view kind_name(Kind kind);
std::optional<Kind> kind_of_name(std::string_view name);

// One row of the documented list: `factor` small units make a large one. Both directions are asked.
struct Conversion {
  std::string_view large, small;  // symbols; answers use them ("days" and "weeks" have a singular)
  std::int64_t factor;
};
inline constexpr std::array<Conversion, 10> kConversions = {{{"km", "m", 1000},
                                                             {"m", "cm", 100},
                                                             {"cm", "mm", 10},
                                                             {"m", "mm", 1000},
                                                             {"kg", "g", 1000},
                                                             {"l", "ml", 1000},
                                                             {"h", "min", 60},
                                                             {"min", "s", 60},
                                                             {"days", "h", 24},
                                                             {"weeks", "days", 7}}};

struct Date {
  int year = 2000, month = 1, day = 1;
};
inline constexpr std::int64_t kDaysInRange = 36525;  // 2000-01-01 to 2099-12-31
Date date_of_day(std::int64_t day);                  // day 0 is 2000-01-01
std::string iso_date(const Date& date);              // "2024-03-05"

struct Problem {
  Kind kind = Kind::kAddition;
  std::vector<std::int64_t> terms;  // operands; kDays: two day numbers; kConversion: one number; kOther: none
  char sign = '+';                  // kPython and kTooLong: + - * /
  bool wants_larger = true;         // kComparison
  int conversion = 0;               // kConversion: the row
  bool to_small = true;             // kConversion: from the large unit to the small one
  std::string text;                 // kOther: the whole question
};

// kPlain: every number is even over its digit counts, then over the numbers of that many digits. kHard, for
// training: three numbers in ten are made of few different digits, pairs are often of like length or close to
// each other.
enum class Numbers { kHard, kPlain };
Problem draw_problem(Kind kind, Prng& rng, Numbers numbers = Numbers::kHard);

// One line that names the problem whatever the phrasing: "48217+9386", "max 5,17", "12 km in m". Its hash
// decides on which side of the split the problem is.
std::string canonical(const Problem& problem);
bool is_held_out(const Problem& problem);  // about one in 64

// What the final channel says. kPython: the result as Python prints it, except "142 remainder 3" for a
// division.
std::string answer(const Problem& problem);

// "12000 m", "1 day": a number with its unit.
std::string with_unit(std::int64_t value, std::string_view unit);

// Numbers up to 30 digits, for products of long operands.
std::string decimal(__int128 value);
int digit_count(std::int64_t value);  // of a number >= 0; 1 for 0

inline constexpr std::string_view kDivisionByZero = "division by zero has no result";
inline constexpr std::string_view kTooLongAnswer =
    "That is too long for my working. Offer me the python tool.";
inline constexpr std::string_view kOtherAnswer =
    "I can only do arithmetic: sums, products, divisions, comparisons, units and days between dates.";

}  // namespace capstan::trainer::abacus

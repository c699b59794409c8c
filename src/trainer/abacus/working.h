// Working: what abacus writes in the analysis channel, so that every character follows from a few earlier
// ones.
//
//   48217+9386                                      the problem
//   E4D8C2B1A7+T0S9R3Q8P6                           its digits by name (places.h)
//   A7+P6+0=1a3 B1+Q8+1=1b0 C2+R3+1=0c6 …           one column a step, with the carry
//   f0e5d7c6b0a3                                    the result by name
//   57603                                           the last line is the answer
//
// working.cc holds addition, sums, subtraction and comparison; working_product.cc multiplication, division
// and conversion; working_dates.cc days between dates. Pure; threads: any.  Bound: kWorkingBytesMax.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/prng.h"
#include "trainer/abacus/problem.h"

namespace capstan::trainer::abacus {

inline constexpr std::size_t kWorkingBytesMax = 420;

struct Working {
  std::string text;                     // ends with the answer, no newline after it
  std::vector<std::size_t> not_scored;  // bytes that training must not learn to predict
};

// Of every kind but kPython, kTooLong and kOther, which need none. `rng` decides where a division tries a
// wrong digit first, to show how it is put right; the wrong digit itself is not scored.
Working make_working(const Problem& problem, Prng& rng);

// The parts, one a family of kinds.
std::string work_addition(std::int64_t x, std::int64_t y);
std::string work_subtraction(std::int64_t x, std::int64_t y);
std::string work_sum(const std::vector<std::int64_t>& terms);
std::string work_comparison(const std::vector<std::int64_t>& terms, bool wants_larger);
std::string work_multiplication(std::int64_t x, std::int64_t y);
// Ends with the line "d0c1b4a3 r000"; the caller adds the answer.
Working work_division(std::int64_t dividend, std::int64_t divisor, Prng& rng);
std::string work_days(std::int64_t from_day, std::int64_t to_day);

// "E4=T4 D8>S3": the digits of two labelled numbers from the top until they differ; `order` becomes -1, 0
// or 1.
struct Scan {
  std::string text;
  int order = 0;
};
struct LabelledNumber {
  std::int64_t value = 0;
  char ones = 'A';
};
Scan scan_places(const LabelledNumber& x, const LabelledNumber& y, int width);

// "A7-P6-0=0a1 B1-Q8-0=1b3": larger minus smaller with borrows, by columns; the result's ones are
// `result_ones`.
std::string subtract_columns(const LabelledNumber& larger, const LabelledNumber& smaller, int width,
                             char result_ones);

}  // namespace capstan::trainer::abacus

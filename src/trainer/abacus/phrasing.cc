// Templates with {a}, {b} for the operands, chosen at random; then small variations of case and marks.
#include "trainer/abacus/phrasing.h"

#include <span>
#include <string_view>
#include <vector>

#include "base/assert.h"
#include "base/text.h"

namespace capstan::trainer::abacus {
namespace {

using View = std::string_view;

constexpr View kAdd[] = {"What is {a} + {b}?",
                         "What is {a} + {b}?",
                         "{a} + {b}",
                         "{a}+{b}",
                         "What is {a}+{b}?",
                         "{a} + {b} = ?",
                         "{a} + {b} =",
                         "Calculate {a} + {b}.",
                         "Calculate {a} plus {b}",
                         "What is {a} plus {b}?",
                         "What's {a} plus {b}?",
                         "What's {a} + {b}?",
                         "Please add {a} and {b}.",
                         "Add {a} and {b}",
                         "Add {b} to {a}.",
                         "How much is {a} + {b}?",
                         "How much is {a} plus {b}?",
                         "What is the sum of {a} and {b}?",
                         "Sum of {a} and {b}",
                         "Compute {a} + {b}.",
                         "Can you add {a} and {b}?",
                         "{a} plus {b}",
                         "Work out {a} + {b}."};
constexpr View kSubtract[] = {"What is {a} - {b}?",
                              "What is {a} - {b}?",
                              "{a} - {b}",
                              "{a}-{b}",
                              "What is {a}-{b}?",
                              "{a} - {b} = ?",
                              "{a} - {b} =",
                              "Calculate {a} - {b}.",
                              "Calculate {a} minus {b}",
                              "What is {a} minus {b}?",
                              "What's {a} minus {b}?",
                              "What's {a} - {b}?",
                              "Please subtract {b} from {a}.",
                              "Subtract {b} from {a}",
                              "Take {b} away from {a}.",
                              "How much is {a} - {b}?",
                              "How much is {a} minus {b}?",
                              "What is the difference of {a} and {b}?",
                              "Compute {a} - {b}.",
                              "Can you subtract {b} from {a}?",
                              "{a} minus {b}",
                              "Work out {a} - {b}."};
constexpr View kMultiply[] = {"What is {a} * {b}?",
                              "What is {a} x {b}?",
                              "{a} * {b}",
                              "{a}*{b}",
                              "{a} x {b}",
                              "What is {a}*{b}?",
                              "{a} * {b} = ?",
                              "{a} x {b} =",
                              "Calculate {a} * {b}.",
                              "Calculate {a} times {b}",
                              "What is {a} times {b}?",
                              "What's {a} times {b}?",
                              "What's {a} * {b}?",
                              "Please multiply {a} by {b}.",
                              "Multiply {a} and {b}",
                              "How much is {a} * {b}?",
                              "How much is {a} times {b}?",
                              "What is the product of {a} and {b}?",
                              "Compute {a} * {b}.",
                              "Can you multiply {a} by {b}?",
                              "{a} times {b}",
                              "Work out {a} * {b}.",
                              "What is {a} × {b}?",
                              "{a} × {b}"};
constexpr View kDivide[] = {"What is {a} / {b}?",
                            "What is {a} divided by {b}?",
                            "{a} / {b}",
                            "{a}/{b}",
                            "What is {a}/{b}?",
                            "{a} / {b} = ?",
                            "Calculate {a} / {b}.",
                            "Calculate {a} divided by {b}",
                            "What's {a} divided by {b}?",
                            "What's {a} / {b}?",
                            "Please divide {a} by {b}.",
                            "Divide {a} by {b}",
                            "How much is {a} / {b}?",
                            "How often does {b} go into {a}?",
                            "Divide {a} by {b} with remainder.",
                            "What is {a} divided by {b} with remainder?",
                            "Compute {a} / {b}.",
                            "Can you divide {a} by {b}?",
                            "{a} divided by {b}",
                            "What is {a} ÷ {b}?",
                            "{a} ÷ {b}"};
constexpr View kLarger[] = {"Which is larger, {a} or {b}?",
                            "Which is larger: {a} or {b}?",
                            "Which is bigger, {a} or {b}?",
                            "Which is greater, {a} or {b}?",
                            "Which number is larger, {a} or {b}?",
                            "What is the larger of {a} and {b}?",
                            "What is the maximum of {a} and {b}?",
                            "Is {a} or {b} larger?",
                            "larger of {a} and {b}",
                            "max of {a} and {b}",
                            "max({a}, {b})",
                            "Compare {a} and {b}: which is larger?",
                            "Which one is bigger: {a} or {b}?"};
constexpr View kSmaller[] = {"Which is smaller, {a} or {b}?",
                             "Which is smaller: {a} or {b}?",
                             "Which is less, {a} or {b}?",
                             "Which number is smaller, {a} or {b}?",
                             "What is the smaller of {a} and {b}?",
                             "What is the minimum of {a} and {b}?",
                             "Is {a} or {b} smaller?",
                             "smaller of {a} and {b}",
                             "min of {a} and {b}",
                             "min({a}, {b})",
                             "Compare {a} and {b}: which is smaller?"};
constexpr View kLargest[] = {"Which is the largest, {a}, {b} or {c}?",
                             "Which is largest: {a}, {b} or {c}?",
                             "Which is the biggest: {a}, {b} or {c}?",
                             "What is the largest of {a}, {b} and {c}?",
                             "What is the maximum of {a}, {b} and {c}?",
                             "largest of {a}, {b}, {c}",
                             "max({a}, {b}, {c})",
                             "Which of {a}, {b} and {c} is the largest?"};
constexpr View kSmallest[] = {"Which is the smallest, {a}, {b} or {c}?",
                              "Which is smallest: {a}, {b} or {c}?",
                              "What is the smallest of {a}, {b} and {c}?",
                              "What is the minimum of {a}, {b} and {c}?",
                              "smallest of {a}, {b}, {c}",
                              "min({a}, {b}, {c})",
                              "Which of {a}, {b} and {c} is the smallest?"};
constexpr View kSumOpen[] = {"What is the sum of ",
                             "Add ",
                             "Sum of ",
                             "What is the total of ",
                             "Please add ",
                             "Add up ",
                             "Calculate the sum of ",
                             "How much is the sum of "};
constexpr View kPlusOpen[] = {"What is ", "", "", "What's ", "Calculate ", "How much is ", "Compute "};
constexpr View kConvert[] = {"Convert {a} {u} to {v}.",
                             "Convert {a} {u} into {v}",
                             "How many {v} are {a} {u}?",
                             "How many {v} are in {a} {u}?",
                             "What is {a} {u} in {v}?",
                             "{a} {u} in {v}",
                             "{a} {u} to {v}",
                             "{a} {u} = ? {v}",
                             "What's {a} {u} in {v}?",
                             "How many {v} is {a} {u}?",
                             "Please convert {a} {u} to {v}.",
                             "Express {a} {u} in {v}."};
constexpr View kDays[] = {"How many days from {a} to {b}?",
                          "How many days are between {a} and {b}?",
                          "How many days are there from {a} to {b}?",
                          "How many days between {a} and {b}?",
                          "Days between {a} and {b}",
                          "Days from {a} to {b}",
                          "days between {a} and {b}?",
                          "What is the number of days from {a} to {b}?",
                          "How many days lie between {a} and {b}?",
                          "Count the days from {a} to {b}.",
                          "How many days is it from {a} to {b}?"};
constexpr View kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                            "July",    "August",   "September", "October", "November", "December"};

struct UnitNames {
  View symbol;
  std::vector<View> plurals;
  View singular;
};

const UnitNames& unit_names(View symbol) {
  static const std::vector<UnitNames> names = {
      {"km", {"km", "km", "kilometres", "kilometers"}, "kilometre"},
      {"m", {"m", "m", "metres", "meters"}, "metre"},
      {"cm", {"cm", "cm", "centimetres", "centimeters"}, "centimetre"},
      {"mm", {"mm", "mm", "millimetres", "millimeters"}, "millimetre"},
      {"kg", {"kg", "kg", "kilograms"}, "kilogram"},
      {"g", {"g", "grams"}, "gram"},
      {"l", {"l", "litres", "liters"}, "litre"},
      {"ml", {"ml", "ml", "millilitres", "milliliters"}, "millilitre"},
      {"h", {"h", "hours", "hours"}, "hour"},
      {"min", {"min", "minutes", "minutes"}, "minute"},
      {"s", {"s", "seconds", "seconds"}, "second"},
      {"days", {"days"}, "day"},
      {"weeks", {"weeks"}, "week"}};
  for (const UnitNames& entry : names) {
    if (entry.symbol == symbol) return entry;
  }
  CAPSTAN_ASSERT(false);
  return names[0];
}

View pick(std::span<const View> from, Prng& rng) { return from[rng.below(from.size())]; }

std::string with_commas(const std::string& digits) {
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

void fill(std::string& text, View gap, const std::string& value) {
  const std::size_t at = text.find(gap);
  CAPSTAN_ASSERT(at != std::string::npos);
  text.replace(at, gap.size(), value);
}

std::string draw_date(std::int64_t day, std::uint64_t form) {
  const Date date = date_of_day(day);
  const std::string month(kMonths[date.month - 1]);
  if (form == 0) return month + " " + std::to_string(date.day) + ", " + std::to_string(date.year);
  if (form == 1) return std::to_string(date.day) + " " + month + " " + std::to_string(date.year);
  return iso_date(date);
}

std::string sum_question(const std::vector<std::string>& terms, Prng& rng) {
  std::string text;
  const bool plus = rng.below(2) == 0;
  if (plus) {
    text = pick(kPlusOpen, rng);
    const View separator = rng.below(4) == 0 ? "+" : rng.below(5) == 0 ? " plus " : " + ";
    for (std::size_t i = 0; i < terms.size(); ++i) text += (i > 0 ? std::string(separator) : "") + terms[i];
  } else {
    text = pick(kSumOpen, rng);
    for (std::size_t i = 0; i < terms.size(); ++i) {
      text += (i == 0 ? "" : i + 1 == terms.size() ? " and " : ", ") + terms[i];
    }
  }
  if (text.starts_with("What") || text.starts_with("How")) text += '?';
  return text;
}

std::span<const View> templates(const Problem& problem) {
  switch (problem.kind) {
    case Kind::kAddition:
      return kAdd;
    case Kind::kSubtraction:
      return kSubtract;
    case Kind::kMultiplication:
      return kMultiply;
    case Kind::kDivision:
      return kDivide;
    case Kind::kComparison:
      if (problem.terms.size() == 2) return problem.wants_larger ? std::span<const View>(kLarger) : kSmaller;
      return problem.wants_larger ? std::span<const View>(kLargest) : kSmallest;
    case Kind::kConversion:
      return kConvert;
    case Kind::kDays:
      return kDays;
    default:
      break;
  }
  switch (problem.sign) {
    case '+':
      return kAdd;
    case '-':
      return kSubtract;
    case '*':
      return kMultiply;
    default:
      return kDivide;
  }
}

std::string unvaried(const Problem& problem, Prng& rng) {
  const bool commas = rng.below(12) == 0 && problem.kind != Kind::kComparison && problem.kind != Kind::kSum;
  const auto written = [&](std::int64_t value) {
    return commas ? with_commas(std::to_string(value)) : std::to_string(value);
  };
  if (problem.kind == Kind::kSum) {
    std::vector<std::string> terms;
    for (const std::int64_t term : problem.terms) terms.push_back(written(term));
    return sum_question(terms, rng);
  }
  std::string text(pick(templates(problem), rng));
  if (problem.kind == Kind::kDays) {
    const std::uint64_t form = rng.below(4);
    fill(text, "{a}", draw_date(problem.terms[0], form));
    fill(text, "{b}", draw_date(problem.terms[1], form));
    return text;
  }
  if (problem.kind == Kind::kConversion) {
    const Conversion& row = kConversions[static_cast<std::size_t>(problem.conversion)];
    const UnitNames& from = unit_names(problem.to_small ? row.large : row.small);
    const UnitNames& to = unit_names(problem.to_small ? row.small : row.large);
    View unit = pick(from.plurals, rng);
    if (problem.terms[0] == 1 && unit.size() > 3) unit = from.singular;
    fill(text, "{u}", std::string(unit));
    fill(text, "{v}", std::string(pick(to.plurals, rng)));
  }
  constexpr View kGaps[] = {"{a}", "{b}", "{c}"};
  for (std::size_t i = 0; i < problem.terms.size(); ++i) fill(text, kGaps[i], written(problem.terms[i]));
  return text;
}

}  // namespace

std::string draw_question(const Problem& problem, Prng& rng) {
  if (problem.kind == Kind::kOther) return problem.text;
  std::string text = unvaried(problem, rng);
  const std::uint64_t variation = rng.below(8);
  if (variation == 0 || variation == 1) text = to_lower(text);
  if ((variation == 1 || variation == 2) && (text.back() == '?' || text.back() == '.')) {
    text.pop_back();
    while (text.ends_with(' ')) text.pop_back();
  }
  if (variation == 3 && rng.below(4) == 0 && text.back() != '?') text += '?';
  CAPSTAN_ASSERT(text.size() <= kQuestionBytesMax);
  return text;
}

}  // namespace capstan::trainer::abacus

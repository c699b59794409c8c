// Backwards checks, the calendar, an evaluator of print(...), and a strict reader of harmony tokens.
#include "trainer/abacus/checker.h"

#include <algorithm>
#include <chrono>

#include "base/text.h"
#include "trainer/abacus/conversation.h"

namespace capstan::trainer::abacus {
namespace {

// Digits only, no sign, no leading zero.
std::optional<std::int64_t> natural(std::string_view text) {
  if (text.empty() || text.size() > 18 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return std::nullopt;
  return parse_int(text);
}

std::optional<std::int64_t> whole(std::string_view text) {
  if (!text.starts_with('-')) return natural(text);
  const auto value = natural(text.substr(1));
  if (!value || *value == 0) return std::nullopt;
  return -*value;
}

bool is_quotient(std::string_view text, std::int64_t dividend, std::int64_t divisor) {
  if (divisor == 0) return text == kDivisionByZero;
  constexpr std::string_view kBetween = " remainder ";
  const std::size_t at = text.find(kBetween);
  if (at == std::string_view::npos) return false;
  const auto quotient = natural(text.substr(0, at));
  const auto remainder = natural(text.substr(at + kBetween.size()));
  return quotient && remainder && *remainder < divisor &&
         static_cast<__int128>(*quotient) * divisor + *remainder == dividend;
}

// "12 km", "1 day": the number, if the unit is the right one.
std::optional<std::int64_t> value_in(std::string_view text, std::string_view unit) {
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto value = natural(text.substr(0, space));
  const bool has_singular = unit == "days" || unit == "weeks";
  if (value == 1 && has_singular) unit.remove_suffix(1);
  return text.substr(space + 1) == unit ? value : std::nullopt;
}

std::chrono::sys_days calendar_day(const std::string& iso) {
  using namespace std::chrono;
  const auto part = [&](std::size_t at, std::size_t size) {
    return *parse_int(std::string_view(iso).substr(at, size));
  };
  return sys_days(year(static_cast<int>(part(0, 4))) / month(static_cast<unsigned>(part(5, 2))) /
                  day(static_cast<unsigned>(part(8, 2))));
}

bool is_days_between(const Problem& problem, std::string_view text) {
  const std::string name = canonical(problem);  // "2024-03-05 to 2024-11-23"
  const auto gap = (calendar_day(name.substr(14)) - calendar_day(name.substr(0, 10))).count();
  const auto value = value_in(text, "days");
  return value && (*value == gap || *value == -gap);
}

// Digit by digit, as on paper; independent of __int128.
std::string paper_product(std::int64_t x, std::int64_t y) {
  std::vector<int> digits(40, 0);
  const std::string a = std::to_string(x), b = std::to_string(y);
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < b.size(); ++j) {
      digits[i + j] += (a[a.size() - 1 - i] - '0') * (b[b.size() - 1 - j] - '0');
    }
  }
  std::string text;
  int carry = 0;
  for (int& digit : digits) {
    carry += digit;
    text.insert(text.begin(), static_cast<char>('0' + carry % 10));
    carry /= 10;
  }
  text.erase(0, std::min(text.find_first_not_of('0'), text.size() - 1));
  return text;
}

bool is_long_result(const Problem& problem, std::string_view text) {
  const std::int64_t x = problem.terms[0], y = problem.terms[1];
  if (problem.sign == '*') return text == paper_product(x, y);
  if (problem.sign == '/') return is_quotient(text, x, y);
  const auto value = whole(text);
  return value && (problem.sign == '+' ? *value - x == y : *value + y == x);
}

std::optional<std::string> evaluate(std::string_view expression) {
  std::vector<std::string_view> words;
  for (const std::string_view word : split(expression, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  if (words.size() == 1) return natural(words[0]) ? std::optional(std::string(words[0])) : std::nullopt;
  if (words.size() != 3) return std::nullopt;
  const auto x = natural(words[0]), y = natural(words[2]);
  if (!x || !y) return std::nullopt;
  if (words[1] == "+") return std::to_string(*x + *y);
  if (words[1] == "-") return std::to_string(*x - *y);
  if (words[1] == "*") return paper_product(*x, *y);
  if (*y == 0) return std::nullopt;
  if (words[1] == "//") return std::to_string(*x / *y);
  if (words[1] == "%") return std::to_string(*x % *y);
  return std::nullopt;
}

}  // namespace

bool is_right_answer(const Problem& problem, std::string_view text) {
  const std::vector<std::int64_t>& terms = problem.terms;
  switch (problem.kind) {
    case Kind::kAddition:
    case Kind::kSum: {
      auto rest = whole(text);
      if (!rest) return false;
      for (const std::int64_t term : terms) *rest -= term;
      return *rest == 0;
    }
    case Kind::kSubtraction: {
      const auto value = whole(text);
      return value && *value + terms[1] == terms[0];
    }
    case Kind::kMultiplication:
      return text == paper_product(terms[0], terms[1]);
    case Kind::kDivision:
      return is_quotient(text, terms[0], terms[1]);
    case Kind::kComparison: {
      std::vector<std::int64_t> sorted = terms;
      std::sort(sorted.begin(), sorted.end());
      if (sorted.size() == 2 && sorted[0] == sorted[1]) return text == "they are equal";
      return whole(text) == (problem.wants_larger ? sorted.back() : sorted.front());
    }
    case Kind::kConversion: {
      const Conversion& row = kConversions[static_cast<std::size_t>(problem.conversion)];
      const auto value = value_in(text, problem.to_small ? row.small : row.large);
      return value && (problem.to_small ? *value == terms[0] * row.factor : *value * row.factor == terms[0]);
    }
    case Kind::kDays:
      return is_days_between(problem, text);
    case Kind::kPython:
      return is_long_result(problem, text);
    case Kind::kTooLong:
      return text == kTooLongAnswer;
    case Kind::kOther:
      return text == kOtherAnswer;
  }
  return false;
}

std::optional<std::string> run_print(std::string_view code) {
  if (!code.starts_with("print(") || !code.ends_with(")")) return std::nullopt;
  code = code.substr(6, code.size() - 7);
  std::string output;
  for (const std::string_view expression : split(code, ',')) {
    const auto value = evaluate(expression);
    if (!value) return std::nullopt;
    output += (output.empty() ? "" : " ") + *value;
  }
  return output;
}

std::optional<std::vector<ReplyMessage>> parse_reply(std::span<const std::int32_t> tokens) {
  std::vector<ReplyMessage> messages;
  std::size_t at = 0;
  const auto text_until_special = [&] {
    std::string text;
    while (at < tokens.size() && tokens[at] < kEndOfText) text += static_cast<char>(tokens[at++]);
    return text;
  };
  const auto takes = [&](std::int32_t token) {
    if (at >= tokens.size() || tokens[at] != token) return false;
    ++at;
    return true;
  };
  for (;;) {
    ReplyMessage message;
    if (!takes(kChannel)) return std::nullopt;
    message.header = text_until_special();
    if (!takes(kMessage)) return std::nullopt;
    message.text = text_until_special();
    if (at >= tokens.size()) return std::nullopt;
    message.end = tokens[at++];
    messages.push_back(message);
    if (message.end == kReturn || message.end == kCall) return messages;
    if (message.end != kEnd || !takes(kStart) || text_until_special() != "assistant") return std::nullopt;
  }
}

}  // namespace capstan::trainer::abacus

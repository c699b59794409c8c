// Numbers of JSON between bounds, as text: minimum, maximum and multipleOf decided digit by digit.
//
// What is written: [-]digits[.digits], no exponent, no leading zeros, no "-0"; up to kDigitsMax digits before
// the point (more if a bound has more) and up to kDigitsMax behind it. Integers have no point. Threads: pure.
// Cost: some hundred nodes; with multipleOf, that times its numerator (kMultipleMax).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/grammar/grammar.h"

namespace capstan::engine {

inline constexpr int kDigitsMax = 15;
inline constexpr std::uint32_t kMultipleMax = 100'000;

// A decimal number without exponent: digits before and behind the point, none of them superfluous.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction = {};

  bool is_zero() const { return whole == "0" && fraction.empty(); }
  // Exactly what the JSON number says. kInvalid beyond 340 digits.
  static Result<Decimal> of(const Json& number);
};
// -1, 0, 1
int compare(const Decimal& a, const Decimal& b);
// kInvalid if the step is not above 0 or has more than 15 digits.
Result<bool> is_multiple(const Decimal& number, const Json& step);

struct NumberBounds {
  bool integer = false;
  std::optional<Decimal> low = {}, high = {};
  bool low_excluded = false, high_excluded = false;
  std::optional<Decimal> multiple = {};     // > 0
  std::vector<Decimal> not_multiples = {};  // > 0: multiples of none of these
};

// The node behind the number. kInvalid if the steps have no common multiple of at most kMultipleMax parts of
// their power of ten.
Result<NodeId> emit_number(GrammarBuilder& build, NodeId from, const NumberBounds& bounds);

}  // namespace capstan::engine

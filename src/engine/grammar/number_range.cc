// A state holds how the digits so far compare with each bound (still equal, or decided), how many digits of
// the whole part are to come, and the remainder by multipleOf's numerator. Numbers of another length than a
// bound are decided from the start; states that are decided forget where they came from, so chains of all
// lengths share them.
#include "engine/grammar/number_range.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace capstan::engine {

Result<Decimal> Decimal::of(const Json& number) {
  std::string text = number.dump();
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.erase(0, 1);
  }
  int exponent = 0;
  if (const std::size_t e = text.find_first_of("eE"); e != std::string::npos) {
    exponent = std::atoi(text.c_str() + e + 1);
    text.resize(e);
  }
  const std::size_t point = text.find('.');
  out.whole = text.substr(0, point);
  out.fraction = point == std::string::npos ? "" : text.substr(point + 1);
  if (exponent > 340 || exponent < -340) return fail(Code::kInvalid, "a number beyond 340 digits");
  for (; exponent > 0; --exponent) {
    out.whole += out.fraction.empty() ? '0' : out.fraction.front();
    if (!out.fraction.empty()) out.fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    out.fraction.insert(0, 1, out.whole.empty() ? '0' : out.whole.back());
    if (!out.whole.empty()) out.whole.pop_back();
  }
  while (out.fraction.ends_with('0')) out.fraction.pop_back();
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  if (out.whole.empty()) out.whole = "0";
  if (out.is_zero()) out.negative = false;
  return out;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int order = 0;
  if (a.whole.size() != b.whole.size()) {
    order = a.whole.size() < b.whole.size() ? -1 : 1;
  } else if (a.whole != b.whole) {
    order = a.whole < b.whole ? -1 : 1;
  } else if (a.fraction != b.fraction) {
    order = a.fraction < b.fraction ? -1 : 1;  // a prefix is smaller, and trailing zeros are cut
  }
  return a.negative ? -order : order;
}

Result<bool> is_multiple(const Decimal& number, const Json& step) {
  CAPSTAN_TRY(const Decimal of, Decimal::of(step));
  const std::size_t places = std::max(number.fraction.size(), of.fraction.size());
  const auto scaled = [&](const Decimal& value) {
    return value.whole + value.fraction + std::string(places - value.fraction.size(), '0');
  };
  const std::string divisor_digits = scaled(of);
  if (of.negative || of.is_zero() || divisor_digits.size() > 17)
    return fail(Code::kInvalid, "multipleOf is larger than 0 and has up to 15 digits");
  const std::uint64_t divisor = std::stoull(divisor_digits);
  std::uint64_t remainder = 0;  // below 10^17, so ten times it fits
  for (const char digit : scaled(number))
    remainder = (remainder * 10 + static_cast<std::uint64_t>(digit - '0')) % divisor;
  return remainder == 0;
}

namespace {

// The steps as whole numbers of a power of ten; `multiple` first.
struct Steps {
  int power = 0;
  std::vector<std::uint64_t> numerators = {};
  std::uint64_t common = 1;  // their least common multiple; above kMultipleMax it may be any such number
};

Steps steps_of(const NumberBounds& bounds) {
  Steps out;
  std::vector<const Decimal*> all;
  if (bounds.multiple) all.push_back(&*bounds.multiple);
  for (const Decimal& other : bounds.not_multiples) all.push_back(&other);
  for (const Decimal* step : all) out.power = std::max(out.power, static_cast<int>(step->fraction.size()));
  for (const Decimal* step : all) {
    const std::string digits = step->whole + step->fraction +
                               std::string(static_cast<std::size_t>(out.power) - step->fraction.size(), '0');
    const std::uint64_t numerator = digits.size() > 17 ? kMultipleMax + 1ull : std::stoull(digits);
    out.numerators.push_back(std::max<std::uint64_t>(numerator, 1));
    out.common = numerator > kMultipleMax || out.common > kMultipleMax
                     ? kMultipleMax + 1ull
                     : std::lcm(out.common, out.numerators.back());
  }
  return out;
}

// Numbers without sign in [low, high].
class MagnitudeRange {
 public:
  MagnitudeRange(GrammarBuilder& build, const NumberBounds& bounds) : build_(build), bounds_(bounds) {
    const Steps steps = steps_of(bounds);
    stepped_ = !steps.numerators.empty();
    power_ = steps.power;
    numerator_ = static_cast<std::uint32_t>(steps.common);
    steps_ = steps.numerators;
  }

  void emit(NodeId from, NodeId behind) {
    behind_ = behind;
    const int low_size = static_cast<int>(bounds_.low->whole.size());
    const int high_size =
        bounds_.high ? static_cast<int>(bounds_.high->whole.size()) : std::max(kDigitsMax, low_size);
    for (int size = low_size; size <= high_size && !build_.overflowed(); ++size) {
      State start{.to_come = size, .at = 0, .first = true};
      start.over_low = size > low_size;
      start.under_high = !bounds_.high || size < high_size;
      build_.empty(from, node_of(start));
    }
    while (!open_.empty() && !build_.overflowed()) {
      const State state = open_.back();
      open_.pop_back();
      expand(state);
    }
  }

 private:
  struct State {
    int to_come = 0;  // digits of the whole part; 0: it is complete
    int at = 0;       // digits read of the part, while a bound is not decided or in the fraction
    bool first = false;
    bool fraction = false;
    bool over_low = false, under_high = false;  // decided; else equal so far
    std::uint32_t remainder = 0;
    auto operator<=>(const State&) const = default;
  };

  NodeId node_of(State state) {
    if (state.over_low && state.under_high && !state.fraction) state.at = 0;
    if (stepped_) {
      // Digits to come multiply what is here by a power of ten: what that makes no difference to is
      // forgotten.
      const int to_come = state.to_come + (state.fraction ? std::max(power_ - state.at, 0) : power_);
      std::uint64_t shared = numerator_;
      for (int i = 0; i < to_come; ++i) shared /= std::gcd(shared, std::uint64_t{10});
      state.remainder %= static_cast<std::uint32_t>(shared);
    }
    const auto [at, fresh] = nodes_.try_emplace(state, 0);
    if (fresh) {
      at->second = build_.new_node();
      open_.push_back(state);
    }
    return at->second;
  }

  static int digit_at(const std::string& digits, int at) {
    return at < static_cast<int>(digits.size()) ? digits[static_cast<std::size_t>(at)] - '0' : 0;
  }
  bool may_end(const State& state) const {
    if (state.to_come > 0 || (state.fraction && state.at == 0)) return false;
    const int read = state.fraction ? state.at : 0;
    const auto more = [&](const Decimal& bound) { return static_cast<int>(bound.fraction.size()) > read; };
    if (!state.over_low && (more(*bounds_.low) || bounds_.low_excluded)) return false;
    if (!state.under_high && !more(*bounds_.high) && bounds_.high_excluded) return false;
    std::uint64_t remainder = state.remainder;
    for (int i = read; i < power_; ++i) remainder = remainder * 10 % numerator_;
    return fits_steps(remainder);
  }
  // The first step is `multiple`, if there is one; of the others it is no multiple.
  bool fits_steps(std::uint64_t remainder) const {
    for (std::size_t i = 0; i < steps_.size(); ++i)
      if ((remainder % steps_[i] == 0) != (i == 0 && bounds_.multiple)) return false;
    return true;
  }

  void expand(const State& state) {
    const NodeId node = nodes_.at(state);
    if (may_end(state)) build_.empty(node, behind_);
    if (state.to_come == 0 && !state.fraction) {
      if (!bounds_.integer && (!stepped_ || power_ > 0)) {
        State next = state;
        next.fraction = true;
        next.at = 0;
        build_.edge(node, '.', '.', node_of(next));
      }
      return;
    }
    if (state.fraction && state.at >= (stepped_ ? std::min(power_, kDigitsMax) : kDigitsMax)) return;
    const auto& low = state.fraction ? bounds_.low->fraction : bounds_.low->whole;
    static const std::string kNone;
    const auto& high = !bounds_.high ? kNone : state.fraction ? bounds_.high->fraction : bounds_.high->whole;
    const int smallest = state.first && state.to_come > 1 ? 1 : 0;
    for (int digit = smallest; digit <= 9; ++digit) {
      State next = state;
      next.first = false;
      if (!state.over_low) {
        if (digit < digit_at(low, state.at)) continue;
        next.over_low = digit > digit_at(low, state.at);
      }
      if (!state.under_high) {
        if (digit > digit_at(high, state.at)) continue;
        next.under_high = digit < digit_at(high, state.at);
      }
      next.at = state.at + 1;
      if (!state.fraction) --next.to_come;
      if (stepped_) next.remainder = (state.remainder * 10 + static_cast<std::uint32_t>(digit)) % numerator_;
      if (stepped_ && bounds_.integer && power_ == 0 && next.to_come == 0 && !fits_steps(next.remainder))
        continue;
      const Symbol symbol = static_cast<Symbol>('0' + digit);
      build_.edge(node, symbol, symbol, node_of(next));
    }
  }

  GrammarBuilder& build_;
  const NumberBounds& bounds_;
  bool stepped_ = false;
  int power_ = 0;                // of ten, by which the steps become whole
  std::uint32_t numerator_ = 1;  // their least common multiple
  std::vector<std::uint64_t> steps_;
  NodeId behind_ = 0;
  std::map<State, NodeId> nodes_;
  std::vector<State> open_;
};

Decimal magnitude(Decimal value) {
  value.negative = false;
  return value;
}

}  // namespace

Result<NodeId> emit_number(GrammarBuilder& build, NodeId from, const NumberBounds& bounds) {
  if (steps_of(bounds).common > kMultipleMax)
    return fail(Code::kInvalid, "steps with more than {} parts of their power of ten are not supported",
                kMultipleMax);
  const NodeId behind = build.new_node();
  const Decimal zero;
  if (!bounds.high || compare(*bounds.high, zero) >= 0) {
    NumberBounds positive = bounds;
    if (!bounds.low || compare(*bounds.low, zero) < 0) {
      positive.low = zero;
      positive.low_excluded = false;
    }
    MagnitudeRange(build, positive).emit(from, behind);
  }
  if (!bounds.low || compare(*bounds.low, zero) < 0) {
    NumberBounds negative = bounds;
    negative.low = bounds.high && compare(*bounds.high, zero) < 0 ? magnitude(*bounds.high) : zero;
    negative.low_excluded = negative.low->is_zero() || bounds.high_excluded;
    negative.high = bounds.low ? std::optional(magnitude(*bounds.low)) : std::nullopt;
    negative.high_excluded = bounds.low_excluded;
    MagnitudeRange(build, negative).emit(build.symbols(from, '-', '-'), behind);
  }
  return behind;
}

}  // namespace capstan::engine

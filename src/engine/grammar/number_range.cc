// A state holds how the digits so far compare with each bound (still equal, or decided), how many digits of
// the whole part are to come, and the remainder by multipleOf's numerator. Numbers of another length than a
// bound are decided from the start; states that are decided forget where they came from, so chains of all
// lengths share them.
#include "engine/grammar/number_range.h"

#include <algorithm>
#include <map>
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
  if (exponent > 300 || exponent < -300) return fail(Code::kInvalid, "a number beyond 300 digits");
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

namespace {

// Numbers without sign in [low, high].
class MagnitudeRange {
 public:
  MagnitudeRange(GrammarBuilder& build, const NumberBounds& bounds) : build_(build), bounds_(bounds) {
    if (bounds_.multiple) {
      power_ = static_cast<int>(bounds_.multiple->fraction.size());
      const std::string digits = bounds_.multiple->whole + bounds_.multiple->fraction;
      numerator_ = static_cast<std::uint32_t>(std::stoul(digits));
    }
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
    if (!bounds_.multiple) return true;
    std::uint64_t remainder = state.remainder;
    for (int i = read; i < power_; ++i) remainder = remainder * 10 % numerator_;
    return remainder == 0;
  }

  void expand(const State& state) {
    const NodeId node = nodes_.at(state);
    if (may_end(state)) build_.empty(node, behind_);
    if (state.to_come == 0 && !state.fraction) {
      if (!bounds_.integer && (!bounds_.multiple || power_ > 0)) {
        State next = state;
        next.fraction = true;
        next.at = 0;
        build_.edge(node, '.', '.', node_of(next));
      }
      return;
    }
    if (state.fraction && state.at >= (bounds_.multiple ? std::min(power_, kDigitsMax) : kDigitsMax)) return;
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
      if (bounds_.multiple)
        next.remainder = (state.remainder * 10 + static_cast<std::uint32_t>(digit)) % numerator_;
      const Symbol symbol = static_cast<Symbol>('0' + digit);
      build_.edge(node, symbol, symbol, node_of(next));
    }
  }

  GrammarBuilder& build_;
  const NumberBounds& bounds_;
  int power_ = 0;  // of ten, by which multipleOf becomes whole
  std::uint32_t numerator_ = 1;
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
  if (bounds.multiple) {
    const std::string digits = bounds.multiple->whole + bounds.multiple->fraction;
    if (digits.size() > 6 || std::stoul(digits) > kMultipleMax) {
      return fail(Code::kInvalid, "a step with more than {} parts of its power of ten is not supported",
                  kMultipleMax);
    }
  }
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

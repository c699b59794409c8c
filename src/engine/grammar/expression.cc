// Thompson's construction.
#include "engine/grammar/expression.h"

#include <algorithm>

namespace capstan::engine {

CodePointSet normalised(CodePointSet set) {
  std::ranges::sort(set, {}, &CodePointRange::low);
  CodePointSet out;
  for (const CodePointRange& range : set) {
    if (!out.empty() && range.low <= out.back().high + 1) {
      out.back().high = std::max(out.back().high, range.high);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

CodePointSet inverted(CodePointSet set) {
  CodePointSet out;
  std::uint32_t next = 0;
  for (const CodePointRange& range : normalised(std::move(set))) {
    if (range.low > next) out.push_back({next, range.low - 1});
    next = range.high + 1;
  }
  if (next <= kCodePointMax) out.push_back({next, kCodePointMax});
  return out;
}

Expression Expression::alternatives(std::vector<Expression> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  return {.kind = Kind::kAlternatives, .parts = std::move(parts)};
}

Expression Expression::repeat(Expression part, int min, int max) {
  Expression out{.kind = Kind::kRepeat, .min = min, .max = max};
  out.parts.push_back(std::move(part));
  return out;
}

namespace {

// Repeats any number of times, at least once if `once`.
NodeId emit_loop(GrammarBuilder& build, NodeId from, const Expression& part, bool once, bool calls) {
  const NodeId begin = build.new_node();
  build.empty(from, begin);
  const NodeId end = emit(build, begin, part, calls);
  build.empty(end, begin);
  if (once) return end;
  const NodeId behind = build.new_node();
  build.empty(begin, behind);
  return behind;
}

NodeId emit_repeat(GrammarBuilder& build, NodeId from, const Expression& repeat, bool calls) {
  const Expression& part = repeat.parts.front();
  if (repeat.max == kUnlimited && repeat.min <= 1)
    return emit_loop(build, from, part, repeat.min == 1, calls);
  Expression called;
  const Expression* each = &part;
  const bool small = part.kind == Expression::Kind::kCharacter || part.kind == Expression::Kind::kRule;
  if (calls && !small && std::max(repeat.min, repeat.max) > 1) {
    const RuleId rule = build.new_rule();
    build.end_rule(rule, emit(build, build.rule_start(rule), part, calls));
    called = Expression::call(rule);
    each = &called;
  }
  for (int i = 0; i < repeat.min && !build.overflowed(); ++i) from = emit(build, from, *each, calls);
  if (repeat.max == kUnlimited) return emit_loop(build, from, *each, false, calls);
  const NodeId behind = build.new_node();
  for (int i = repeat.min; i < repeat.max && !build.overflowed(); ++i) {
    build.empty(from, behind);
    from = emit(build, from, *each, calls);
  }
  build.empty(from, behind);
  return behind;
}

}  // namespace

NodeId emit(GrammarBuilder& build, NodeId from, const Expression& expression, bool calls) {
  if (build.overflowed()) return from;
  switch (expression.kind) {
    case Expression::Kind::kCharacter: {
      const NodeId to = build.new_node();
      for (const CodePointRange& range : expression.set) build.code_points(from, range.low, range.high, to);
      return to;
    }
    case Expression::Kind::kSequence:
      for (const Expression& part : expression.parts) from = emit(build, from, part, calls);
      return from;
    case Expression::Kind::kAlternatives: {
      const NodeId to = build.new_node();
      for (const Expression& part : expression.parts) {
        const NodeId begin = build.new_node();
        build.empty(from, begin);
        build.empty(emit(build, begin, part, calls), to);
      }
      return to;
    }
    case Expression::Kind::kRepeat:
      return emit_repeat(build, from, expression, calls);
    case Expression::Kind::kRule:
      return build.call(from, expression.rule);
    case Expression::Kind::kByte:
      return build.symbols(from, expression.byte, expression.byte);
  }
  return from;
}

namespace {

Result<int> read_number(std::string_view text, std::size_t& at) {
  int value = 0;
  const std::size_t begin = at;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    value = value * 10 + (text[at] - '0');
    if (value > kRepeatMax) return fail(Code::kInvalid, "a repetition beyond {}", kRepeatMax);
  }
  if (at == begin) return fail(Code::kInvalid, "a repetition is {{m}}, {{m,}} or {{m,n}}");
  return value;
}

}  // namespace

Result<RepeatBounds> read_bounds(std::string_view text, std::size_t& at) {
  RepeatBounds bounds;
  if (at < text.size() && text[at] == ',') {
    bounds.min = 0;
  } else {
    CAPSTAN_TRY(bounds.min, read_number(text, at));
  }
  bounds.max = bounds.min;
  if (at < text.size() && text[at] == ',') {
    ++at;
    if (at < text.size() && text[at] == '}') {
      bounds.max = kUnlimited;
    } else {
      CAPSTAN_TRY(bounds.max, read_number(text, at));
    }
  }
  if (at >= text.size() || text[at] != '}')
    return fail(Code::kInvalid, "a repetition is {{m}}, {{m,}} or {{m,n}}");
  ++at;
  if (bounds.max != kUnlimited && bounds.max < bounds.min)
    return fail(Code::kInvalid, "the repetition {{{},{}}} has its bounds swapped", bounds.min, bounds.max);
  return bounds;
}

Result<std::uint32_t> read_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  const std::size_t size = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (size == 0 || at + size > text.size()) return fail(Code::kInvalid, "byte {} is no UTF-8", at);
  std::uint32_t value = size == 1 ? lead : lead & (0x3F >> (size - 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return fail(Code::kInvalid, "byte {} is no UTF-8", at + i);
    value = value << 6 | (byte(at + i) & 0x3F);
  }
  if (value > kCodePointMax) return fail(Code::kInvalid, "byte {} is no UTF-8", at);
  at += size;
  return value;
}

Result<std::uint32_t> read_hex(std::string_view text, std::size_t& at, int digits) {
  std::uint32_t value = 0;
  for (int i = 0; i < digits; ++i, ++at) {
    const char c = at < text.size() ? text[at] : '\0';
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return fail(Code::kInvalid, "an escape needs {} hexadecimal digits", digits);
    value = value << 4 | static_cast<std::uint32_t>(digit);
  }
  if (value > kCodePointMax) return fail(Code::kInvalid, "an escape beyond U+10FFFF");
  return value;
}

}  // namespace capstan::engine

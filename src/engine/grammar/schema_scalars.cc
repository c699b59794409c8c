// Strings, numbers, and constants beside other keywords.
#include <algorithm>

#include "engine/grammar/formats.h"
#include "engine/grammar/number_range.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::size_t kPatternStatesMax = 100'000;

}  // namespace

Result<void> SchemaCompiler::spend(const Dfa& dfa, const std::string& pointer) {
  dfa_states_ += dfa.size();
  if (dfa_states_ <= kPatternStatesMax) return {};
  return schema_error(pointer, "",
                      fmt::format("all patterns together need more than {} states", kPatternStatesMax));
}

// The texts that pattern, format, minLength and maxLength leave.
Result<Dfa> SchemaCompiler::text_of(const Json& schema, const std::string& pointer) {
  CAPSTAN_TRY(const auto min, count(schema, "minLength", 0, pointer));
  CAPSTAN_TRY(const auto max, count(schema, "maxLength", kNoBound, pointer));
  if (min > max) return schema_error(pointer, "minLength", "it is larger than maxLength");
  Dfa dfa = Dfa::every_text();
  if (const Json* patterns = schema.find(kPatterns)) {
    for (const Json& pattern : patterns->items()) {
      const auto place = [&](const Error& error) {
        return schema_error(pointer, "pattern", fmt::format("'{}': {}", pattern.as_string(), error.message));
      };
      auto expression = parse_regex(pattern.as_string());
      if (!expression) return place(expression.error());
      auto one = Dfa::of(*expression);
      if (!one) return place(one.error());
      auto joined = dfa.both(*one);
      if (!joined) return place(joined.error());
      dfa = *std::move(joined);
      CAPSTAN_CHECK(spend(dfa, pointer));
    }
  }
  if (min == 0 && max == kNoBound) return dfa;
  constexpr std::uint32_t kLengthMax = 1'024;
  if (min > kLengthMax)
    return schema_error(pointer, "minLength",
                        fmt::format("above {} it is not supported beside a pattern or format", kLengthMax));
  auto bounded = dfa.both(Dfa::length(min, max == kNoBound ? max : std::min(max, kLengthMax)));
  if (!bounded)
    return schema_error(pointer, max == kNoBound ? "minLength" : "maxLength",
                        "with the pattern " + bounded.error().message);
  CAPSTAN_CHECK(spend(*bounded, pointer));
  return bounded;
}

Result<NodeId> SchemaCompiler::string(const Json& schema, const std::string& pointer, NodeId from) {
  if (const Json* format = schema.find("format")) {  // a known one has become a pattern
    return schema_error(
        pointer, "format",
        fmt::format("{} cannot be enforced and is refused; known are {}", format->dump(), known_formats()));
  }
  if (schema.contains("pattern")) return schema_error(pointer, "pattern", "it is a string");
  if (schema.contains(kPatterns)) {
    CAPSTAN_TRY(const Dfa dfa, text_of(schema, pointer));
    if (dfa.is_empty()) return build_.new_node();
    return build_.symbols(dfa.emit_json_string(build_, build_.symbols(from, '"', '"')), '"', '"');
  }
  CAPSTAN_TRY(const auto min, count(schema, "minLength", 0, pointer));
  CAPSTAN_TRY(const auto max, count(schema, "maxLength", kNoBound, pointer));
  if (min > kCharactersMax)
    return schema_error(pointer, "minLength", fmt::format("above {} it is not supported", kCharactersMax));
  if (min > max) return build_.new_node();
  return build_.call(from, json_.string(min, max == kNoBound ? max : std::min(max, kCharactersMax)));
}

Result<NodeId> SchemaCompiler::number(const Json& schema, bool integer, const std::string& pointer,
                                      NodeId from) {
  NumberBounds bounds{.integer = integer};
  bool any = false;
  const auto read = [&](std::string_view keyword) -> Result<std::optional<Decimal>> {
    const Json* value = schema.find(keyword);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) return schema_error(pointer, keyword, "it is a number");
    any = true;
    auto decimal = Decimal::of(*value);
    if (!decimal) return schema_error(pointer, keyword, decimal.error().message);
    return *decimal;
  };
  CAPSTAN_TRY(bounds.low, read("minimum"));
  CAPSTAN_TRY(bounds.high, read("maximum"));
  CAPSTAN_TRY(const auto above, read("exclusiveMinimum"));
  CAPSTAN_TRY(const auto below, read("exclusiveMaximum"));
  CAPSTAN_TRY(bounds.multiple, read("multipleOf"));
  if (!any) return build_.call(from, integer ? json_.integer() : json_.number());
  if (above && (!bounds.low || compare(*above, *bounds.low) >= 0))
    bounds.low = above, bounds.low_excluded = true;
  if (below && (!bounds.high || compare(*below, *bounds.high) <= 0))
    bounds.high = below, bounds.high_excluded = true;
  if (bounds.multiple && (bounds.multiple->negative || bounds.multiple->is_zero()))
    return schema_error(pointer, "multipleOf", "it is larger than 0");
  if (bounds.low && bounds.high && compare(*bounds.low, *bounds.high) > 0) return build_.new_node();
  for (const auto& bound : {bounds.low, bounds.high}) {
    if (bound && bound->whole.size() > 18)
      return schema_error(pointer, "", "bounds of numbers have up to 18 digits");
  }
  auto end = emit_number(build_, from, bounds);
  if (!end) return schema_error(pointer, "multipleOf", end.error().message);
  return end;
}

// Does a constant satisfy the keywords beside it?
Result<bool> SchemaCompiler::admits(const Json& schema, const Json& literal, const std::string& pointer) {
  if (const Json* type = schema.find("type")) {
    const Json list = type->is_array() ? *type : Json::array({*type});
    const bool whole =
        literal.is_int() ||
        (literal.is_number() && Decimal::of(literal).value_or(Decimal{.fraction = "5"}).fraction.empty());
    const bool fits = std::ranges::any_of(list.items(), [&](const Json& item) {
      return item == Json(literal.type_name()) || (item == Json("number") && literal.is_number()) ||
             (item == Json("integer") && whole);
    });
    if (!fits) return false;
  }
  for (const auto& [key, value] : schema.members()) {
    if (key == "type" || key == "enum" || key == "const" || is_annotation(key)) continue;
    const bool of_strings = key == kPatterns || key == "minLength" || key == "maxLength";
    const bool of_numbers = key == "multipleOf" || key == "minimum" || key == "maximum" ||
                            key == "exclusiveMinimum" || key == "exclusiveMaximum";
    if (key == "multipleOf" || (!of_strings && !of_numbers))
      return schema_error(pointer, key, fmt::format("'{}' beside enum or const is not supported", key));
    if (of_strings && literal.is_string()) {
      CAPSTAN_TRY(const Dfa dfa, text_of(schema, pointer));
      if (!dfa.matches(literal.as_string())) return false;
    }
    if (of_numbers && literal.is_number()) {
      if (!value.is_number()) return schema_error(pointer, key, "it is a number");
      CAPSTAN_TRY(const Decimal bound, Decimal::of(value));
      CAPSTAN_TRY(const Decimal mine, Decimal::of(literal));
      const int order =
          (key == "minimum" || key == "exclusiveMinimum") ? compare(mine, bound) : compare(bound, mine);
      if (order < 0 || (order == 0 && key.starts_with("exclusive"))) return false;
    }
  }
  return true;
}

}  // namespace capstan::engine

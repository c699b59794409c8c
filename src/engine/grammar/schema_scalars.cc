// Strings, numbers, and constants beside other keywords.
#include <algorithm>

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

Result<Dfa> SchemaCompiler::without_texts(Dfa dfa, const Json& schema, const std::string& pointer) {
  const auto place = [&](const Error& error) { return schema_error(pointer, "not", error.message); };
  if (const Json* patterns = schema.find(kNotPatterns)) {
    for (const Json& pattern : patterns->items()) {
      auto texts = merge_.values().pattern(pattern.as_string());
      if (!texts) return place(texts.error());
      auto left = dfa.without(**texts);
      if (!left) return place(left.error());
      dfa = *std::move(left);
      CAPSTAN_CHECK(spend(dfa, pointer));
    }
  }
  if (const Json* texts = schema.find(kNotTexts)) {
    std::vector<std::string> list;
    for (const Json& text : texts->items()) list.push_back(text.as_string());
    auto known = Dfa::of_texts(list);
    if (!known) return place(known.error());
    auto left = dfa.without(*known);
    if (!left) return place(left.error());
    dfa = *std::move(left);
    CAPSTAN_CHECK(spend(dfa, pointer));
  }
  return dfa;
}

// The texts that pattern, format, minLength and maxLength leave.
Result<Dfa> SchemaCompiler::text_of(const Json& schema, const std::string& pointer) {
  CAPSTAN_TRY(const auto min, count(schema, "minLength", 0, pointer));
  CAPSTAN_TRY(const auto max, count(schema, "maxLength", kNoBound, pointer));
  if (min > max) return Dfa::of_texts({});
  Dfa dfa = Dfa::every_text();
  if (const Json* patterns = schema.find(kPatterns)) {
    for (const Json& pattern : patterns->items()) {
      const auto place = [&](const Error& error) {
        return schema_error(pointer, "pattern", fmt::format("'{}': {}", pattern.as_string(), error.message));
      };
      if (!pattern.is_string()) return schema_error(pointer, "pattern", "it is a string");
      auto one = merge_.values().pattern(pattern.as_string());
      if (!one) return place(one.error());
      auto joined = dfa.both(**one);
      if (!joined) return place(joined.error());
      dfa = *std::move(joined);
      CAPSTAN_CHECK(spend(dfa, pointer));
    }
  }
  CAPSTAN_TRY(dfa, without_texts(std::move(dfa), schema, pointer));
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

// The texts that satisfy a schema, whatever it is: for the names of properties.
Result<Dfa> SchemaCompiler::texts_under(const Json& schema, const std::string& pointer, int depth) {
  auto flat = merge_.flat(schema);
  if (!flat) return schema_error(pointer, "", flat.error().message);
  if (*flat == Json(true)) return Dfa::every_text();
  CAPSTAN_TRY(const bool strings, allows_strings(*flat, pointer));
  if (!flat->is_object() || !strings || depth > 8) return Dfa::of_texts({});
  if (const Json* constants = flat->find("enum"); constants != nullptr && constants->is_array()) {
    std::vector<std::string> texts;
    for (const Json& text : constants->items()) {
      CAPSTAN_TRY(const bool fits, admits(*flat, text, pointer));
      if (fits && text.is_string()) texts.push_back(text.as_string());
    }
    return Dfa::of_texts(texts);
  }
  const Json* branches = flat->find("anyOf");
  if (branches == nullptr) return text_of(*flat, pointer);
  Json base = *flat;
  base.erase("anyOf");
  Dfa all = Dfa::of_texts({}).value();
  for (const Json& branch : branches->items()) {
    auto joined = merge_.both(base, branch);
    if (!joined) return schema_error(pointer, "anyOf", joined.error().message);
    CAPSTAN_TRY(const Dfa texts, texts_under(*joined, pointer, depth + 1));
    auto more = all.either(texts);
    if (!more) return schema_error(pointer, "anyOf", more.error().message);
    all = *std::move(more);
    CAPSTAN_CHECK(spend(all, pointer));
  }
  return all;
}

Result<NodeId> SchemaCompiler::string(const Json& schema, const std::string& pointer, NodeId from) {
  if (schema.contains("pattern")) return schema_error(pointer, "pattern", "it is a string");
  if (schema.contains(kPatterns) || schema.contains(kNotPatterns) || schema.contains(kNotTexts)) {
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
  if (const Json* steps = schema.find(kNotMultiples)) {
    any = true;
    for (const Json& step : steps->items()) {
      const auto decimal = Decimal::of(step.is_number() ? step : Json(0));
      if (!decimal || decimal->negative || decimal->is_zero())
        return schema_error(pointer, "multipleOf", "it is a number larger than 0");
      bounds.not_multiples.push_back(*decimal);
    }
  }
  if (!any) return build_.call(from, integer ? json_.integer() : json_.number());
  if (above && (!bounds.low || compare(*above, *bounds.low) >= 0))
    bounds.low = above, bounds.low_excluded = true;
  if (below && (!bounds.high || compare(*below, *bounds.high) <= 0))
    bounds.high = below, bounds.high_excluded = true;
  if (bounds.multiple && (bounds.multiple->negative || bounds.multiple->is_zero()))
    return schema_error(pointer, "multipleOf", "it is larger than 0");
  if (bounds.low && bounds.high && compare(*bounds.low, *bounds.high) > 0) return build_.new_node();
  // What is written has up to kDigitsMax digits, so wider bounds bind nothing.
  const auto is_wide = [](const std::optional<Decimal>& bound) { return bound && bound->whole.size() > 18; };
  if ((is_wide(bounds.low) && !bounds.low->negative) || (is_wide(bounds.high) && bounds.high->negative))
    return schema_error(pointer, bounds.low && !bounds.low->negative ? "minimum" : "maximum",
                        "numbers of more than 18 digits are not supported");
  if (is_wide(bounds.low)) bounds.low.reset();
  if (is_wide(bounds.high)) bounds.high.reset();
  auto end = emit_number(build_, from, bounds);
  if (!end) return schema_error(pointer, "multipleOf", end.error().message);
  return end;
}

// Does a constant satisfy the keywords beside it?
Result<bool> SchemaCompiler::admits(const Json& schema, const Json& literal, const std::string& pointer) {
  auto fits = merge_.values().fits(schema, literal);
  if (!fits) return schema_error(pointer, "enum", fits.error().message);
  return fits;
}

}  // namespace capstan::engine

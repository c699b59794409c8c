// One function for each type's keywords; those that combine schemas come first.
#include "engine/grammar/schema_values.h"

#include <algorithm>

#include "engine/grammar/formats.h"
#include "engine/grammar/number_range.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_merge.h"

namespace capstan::engine {
namespace {

constexpr int kDepthMax = 64;

bool is_whole(const Json& number) {
  if (number.is_int()) return true;
  const auto decimal = Decimal::of(number);
  return decimal && decimal->fraction.empty();
}

bool has_type(const Json& value, const Json& type) {
  if (!type.is_string()) return false;
  if (type.as_string() == "integer") return value.is_number() && is_whole(value);
  if (type.as_string() == "number") return value.is_number();
  return type.as_string() == value.type_name();
}

bool is_one_of(const Json& value, const Json& list) {
  return std::ranges::any_of(list.items(), [&](const Json& item) { return same_value(item, value); });
}

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

// The bound's value, or `otherwise`.
double bound(const Json& schema, std::string_view keyword, double otherwise) {
  const Json* value = schema.find(keyword);
  return value != nullptr && value->is_number() ? value->as_double() : otherwise;
}

constexpr double kEndless = 1e300;

}  // namespace

bool same_value(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number())
    return a.is_int() && b.is_int() ? a.as_int() == b.as_int() : a.as_double() == b.as_double();
  if (a.is_array() && b.is_array()) return std::ranges::equal(a.items(), b.items(), same_value);
  if (!a.is_object() || !b.is_object()) return a == b;
  return a.size() == b.size() && std::ranges::all_of(a.members(), [&](const Json::Member& member) {
           const Json* other = b.find(member.first);
           return other != nullptr && same_value(member.second, *other);
         });
}

Result<const Dfa*> SchemaValues::pattern(const std::string& text) {
  if (const auto known = patterns_.find(text); known != patterns_.end()) return &known->second;
  CAPSTAN_TRY(Dfa dfa, parse_pattern(text));
  return &patterns_.emplace(text, std::move(dfa)).first->second;
}

Result<bool> SchemaValues::fits(const Json& schema, const Json& value, int depth) {
  if (schema.is_bool()) return schema.as_bool();
  if (!schema.is_object()) return fail(Code::kInvalid, "a schema is an object, true or false");
  if (depth > kDepthMax) return fail(Code::kInvalid, "schemas that refer to each other do not end");
  if (const Json* type = schema.find("type")) {
    const bool null = value.is_null() && schema.get_bool("nullable") == true;
    const bool fits =
        type->is_array()
            ? std::ranges::any_of(type->items(), [&](const Json& one) { return has_type(value, one); })
            : has_type(value, *type);
    if (!fits && !null) return false;
  }
  if (const Json* only = schema.find("const"); only != nullptr && !same_value(*only, value)) return false;
  if (const Json* list = schema.find("enum"); list != nullptr && list->is_array() && !is_one_of(value, *list))
    return false;
  CAPSTAN_TRY(bool fine, combined_fits(schema, value, depth));
  if (!fine) return false;
  if (value.is_number()) return number_fits(schema, value);
  if (value.is_string()) return string_fits(schema, value.as_string());
  if (value.is_array()) return array_fits(schema, value, depth);
  if (value.is_object()) return object_fits(schema, value, depth);
  return true;
}

Result<std::size_t> SchemaValues::count_fits(const Json& schemas, const Json& value, int depth) {
  std::size_t count = 0;
  for (const Json& schema : schemas.items()) {
    CAPSTAN_TRY(const bool fine, fits(schema, value, depth + 1));
    count += fine;
  }
  return count;
}

Result<bool> SchemaValues::combined_fits(const Json& schema, const Json& value, int depth) {
  if (const auto reference = schema.get_string("$ref")) {
    CAPSTAN_TRY(const Json target, resolve_(*reference));
    CAPSTAN_TRY(const bool fine, fits(target, value, depth + 1));
    if (!fine) return false;
  }
  for (const std::string_view word : {"allOf", "anyOf", "oneOf"}) {
    const Json* list = schema.find(word);
    if (list == nullptr || !list->is_array()) continue;
    CAPSTAN_TRY(const std::size_t count, count_fits(*list, value, depth));
    if (word == "allOf" ? count < list->size() : word == "anyOf" ? count == 0 : count != 1) return false;
  }
  if (const Json* other = schema.find("not")) {
    CAPSTAN_TRY(const bool fine, fits(*other, value, depth + 1));
    if (fine) return false;
  }
  const Json* condition = schema.find("if");
  if (condition == nullptr) return true;
  CAPSTAN_TRY(const bool holds, fits(*condition, value, depth + 1));
  const Json* then = schema.find(holds ? "then" : "else");
  return then == nullptr ? Result<bool>(true) : fits(*then, value, depth + 1);
}

Result<bool> SchemaValues::number_fits(const Json& schema, const Json& value) {
  CAPSTAN_TRY(const Decimal mine, Decimal::of(value));
  for (const std::string_view word : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
    const Json* limit = schema.find(word);
    if (limit == nullptr || !limit->is_number()) continue;
    CAPSTAN_TRY(const Decimal other, Decimal::of(*limit));
    const int order = word.ends_with("inimum") ? compare(mine, other) : compare(other, mine);
    if (order < 0 || (order == 0 && word.starts_with("exclusive"))) return false;
  }
  if (const Json* steps = schema.find(kNotMultiples)) {
    for (const Json& step : steps->items()) {
      CAPSTAN_TRY(const bool multiple, is_multiple(mine, step));
      if (multiple) return false;
    }
  }
  const Json* step = schema.find("multipleOf");
  return step == nullptr || !step->is_number() ? Result<bool>(true) : is_multiple(mine, *step);
}

Result<bool> SchemaValues::string_fits(const Json& schema, const std::string& text) {
  const auto length = static_cast<double>(characters(text));
  if (length < bound(schema, "minLength", 0) || length > bound(schema, "maxLength", kEndless)) return false;
  std::vector<std::string> patterns;
  if (const auto own = schema.get_string("pattern")) patterns.push_back(*own);
  if (const auto format = schema.get_string("format"); format && !format_pattern(*format).empty())
    patterns.emplace_back(format_pattern(*format));
  if (const Json* joined = schema.find(kPatterns))
    for (const Json& one : joined->items()) patterns.push_back(one.as_string());
  for (const std::string& one : patterns) {
    CAPSTAN_TRY(const Dfa* dfa, pattern(one));
    if (!dfa->matches(text)) return false;
  }
  if (const Json* joined = schema.find(kNotPatterns)) {
    for (const Json& one : joined->items()) {
      CAPSTAN_TRY(const Dfa* dfa, pattern(one.as_string()));
      if (dfa->matches(text)) return false;
    }
  }
  const Json* others = schema.find(kNotTexts);
  return others == nullptr || !is_one_of(Json(text), *others);
}

Result<bool> SchemaValues::array_fits(const Json& schema, const Json& value, int depth) {
  const auto size = static_cast<double>(value.size());
  if (size < bound(schema, "minItems", 0) || size > bound(schema, "maxItems", kEndless)) return false;
  const Json* prefix = schema.find("prefixItems");
  const std::size_t fixed = prefix != nullptr && prefix->is_array() ? prefix->size() : 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const Json* each = i < fixed ? &prefix->items()[i] : schema.find("items");
    if (each == nullptr) continue;
    CAPSTAN_TRY(const bool fine, fits(*each, value.items()[i], depth + 1));
    if (!fine) return false;
  }
  if (schema.get_bool("uniqueItems") == true) {
    for (std::size_t i = 0; i < value.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (same_value(value.items()[i], value.items()[j])) return false;
  }
  const Json* contained = schema.find("contains");
  if (contained == nullptr) return true;
  std::size_t count = 0;
  for (const Json& item : value.items()) {
    CAPSTAN_TRY(const bool fine, fits(*contained, item, depth + 1));
    count += fine;
  }
  return static_cast<double>(count) >= bound(schema, "minContains", 1) &&
         static_cast<double>(count) <= bound(schema, "maxContains", kEndless);
}

Result<bool> SchemaValues::member_fits(const Json& schema, const Json::Member& member, int depth) {
  const auto& [name, value] = member;
  if (const Json* names = schema.find("propertyNames")) {
    CAPSTAN_TRY(const bool fine, fits(*names, Json(name), depth + 1));
    if (!fine) return false;
  }
  bool known = false;
  if (const Json* named = schema.find("properties"); named != nullptr && named->find(name) != nullptr) {
    known = true;
    CAPSTAN_TRY(const bool fine, fits(*named->find(name), value, depth + 1));
    if (!fine) return false;
  }
  if (const Json* patterns = schema.find("patternProperties"); patterns != nullptr && patterns->is_object()) {
    for (const auto& [text, part] : patterns->members()) {
      CAPSTAN_TRY(const Dfa* dfa, pattern(text));
      if (!dfa->matches(name)) continue;
      known = true;
      CAPSTAN_TRY(const bool fine, fits(part, value, depth + 1));
      if (!fine) return false;
    }
  }
  const Json* further = schema.find("additionalProperties");
  return known || further == nullptr ? Result<bool>(true) : fits(*further, value, depth + 1);
}

Result<bool> SchemaValues::object_fits(const Json& schema, const Json& value, int depth) {
  const auto size = static_cast<double>(value.size());
  if (size < bound(schema, "minProperties", 0) || size > bound(schema, "maxProperties", kEndless))
    return false;
  const auto has_all = [&](const Json& names) {
    return !names.is_array() || std::ranges::all_of(names.items(), [&](const Json& name) {
      return name.is_string() && value.contains(name.as_string());
    });
  };
  if (const Json* required = schema.find("required"); required != nullptr && !has_all(*required))
    return false;
  for (const Json::Member& member : value.members()) {
    CAPSTAN_TRY(const bool fine, member_fits(schema, member, depth));
    if (!fine) return false;
  }
  if (const Json* dependents = schema.find("dependentRequired");
      dependents != nullptr && dependents->is_object()) {
    for (const auto& [name, wanted] : dependents->members())
      if (value.contains(name) && !has_all(wanted)) return false;
  }
  if (const Json* dependents = schema.find("dependentSchemas");
      dependents != nullptr && dependents->is_object()) {
    for (const auto& [name, wanted] : dependents->members()) {
      if (!value.contains(name)) continue;
      CAPSTAN_TRY(const bool fine, fits(wanted, value, depth + 1));
      if (!fine) return false;
    }
  }
  return true;
}

}  // namespace capstan::engine

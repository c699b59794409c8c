// Two schemas are made flat and their keywords joined one by one; what concerns properties, items and choices
// is joined as a whole. Choices multiply, so those that cannot be are found early.
#include "engine/grammar/schema_merge.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/grammar/formats.h"
#include "engine/grammar/number_range.h"
#include "engine/grammar/schema_words.h"

namespace capstan::engine {
namespace {

constexpr int kEagerDepthMax = 6;
constexpr std::size_t kBranchesMax = 256;

// Types of both; integer is a kind of number.
Json types_of_both(const Json& a, const Json& b) {
  const Json left = as_list(a), right = as_list(b);
  Json out = Json::array();
  for (const Json& type : left.items()) {
    if (contains(right, type)) {
      out.push_back(type);
    } else if ((type == Json("number") && contains(right, "integer")) ||
               (type == Json("integer") && contains(right, "number"))) {
      out.push_back("integer");
    }
  }
  return out;
}

// Joined as a whole.
bool is_joined_apart(std::string_view key) {
  static constexpr std::array<std::string_view, 6> kWords = {
      "properties", "additionalProperties", "patternProperties", "items", "prefixItems", "anyOf"};
  return is_among(kWords, key);
}

// A word without meaning, in which joined schemas may differ.
bool is_unknown(std::string_view key) {
  static constexpr std::array<std::string_view, 20> kWords = {
      kNotMultiples, "type",          "enum",        "required",         "multipleOf",
      "contains",    "minimum",       "maximum",     "exclusiveMinimum", "minItems",
      "maxItems",    "minContains",   "maxContains", "minLength",        "exclusiveMaximum",
      "maxLength",   "minProperties", kPatterns,     kNotTexts,          kNotPatterns};
  return !is_among(kWords, key) && key != "maxProperties" && key != "pattern";
}

Result<Json> multiple_of_both(const Json& a, const Json& b) {
  CAPSTAN_TRY(const Decimal left, Decimal::of(a));
  CAPSTAN_TRY(const Decimal right, Decimal::of(b));
  const std::size_t places = std::max(left.fraction.size(), right.fraction.size());
  const auto scaled = [&](const Decimal& number) {
    return number.whole + number.fraction + std::string(places - number.fraction.size(), '0');
  };
  if (left.whole.size() + places > 9 || right.whole.size() + places > 9 || left.negative || right.negative ||
      left.is_zero() || right.is_zero())
    return cannot("multipleOf", "two such steps cannot be joined");
  std::string both = std::to_string(std::lcm(std::stoll(scaled(left)), std::stoll(scaled(right))));
  if (places > 0) {
    both.insert(0, both.size() <= places ? places + 1 - both.size() : 0, '0');
    both.insert(both.size() - places, ".");
  }
  return Json::parse(both);
}

}  // namespace

Result<Json> SchemaMerge::inner(const Json& a, const Json& b, int depth) {
  if (a == b || b == Json(true)) return a;
  if (a == Json(true)) return b;
  if (a == Json(false) || b == Json(false)) return Json(false);
  if (depth > kEagerDepthMax) return Json::object({{"allOf", Json::array({a, b})}});
  return both(a, b, depth + 1);
}

// A property that only one side names is what the other side's additionalProperties makes of it; what its
// patternProperties say is asked when the object is compiled.
Result<void> SchemaMerge::join_properties(Json& out, const Json& a, const Json& b, int depth) {
  const auto matches_any = [&](const Json& schema, const std::string& name) -> Result<bool> {
    const Json* patterns = schema.find("patternProperties");
    if (patterns == nullptr || !patterns->is_object()) return false;
    for (const auto& [pattern, part] : patterns->members()) {
      CAPSTAN_TRY(const Dfa* dfa, values_.pattern(pattern));
      if (dfa->matches(name)) return true;
    }
    return false;
  };
  const auto add = [&](const Json& from, const Json& other) -> Result<void> {
    const Json* properties = from.find("properties");
    if (properties == nullptr) return {};
    if (!properties->is_object()) return cannot("properties", "it is an object of schemas");
    const Json* others = other.find("properties");
    Json& mine = out["properties"];
    if (mine.is_null()) mine = Json::object();
    for (const auto& [name, schema] : properties->members()) {
      if (mine.contains(name)) continue;
      const Json* match = others != nullptr ? others->find(name) : nullptr;
      if (match == nullptr && other.contains("additionalProperties")) {
        CAPSTAN_TRY(const bool matched, matches_any(other, name));
        if (!matched) match = other.find("additionalProperties");
      }
      if (match == nullptr) {
        mine[name] = schema;
      } else {
        CAPSTAN_TRY(mine[name], inner(schema, *match, depth));
      }
    }
    return {};
  };
  CAPSTAN_CHECK(add(a, b));
  CAPSTAN_CHECK(add(b, a));
  CAPSTAN_CHECK(join_patterns(out, a, b, depth));
  const Json* left = a.find("additionalProperties");
  const Json* right = b.find("additionalProperties");
  if (left != nullptr && right != nullptr) {
    CAPSTAN_TRY(out["additionalProperties"], inner(*left, *right, depth));
  } else if (left != nullptr || right != nullptr) {
    out["additionalProperties"] = left != nullptr ? *left : *right;  // the other side allows everything
  }
  return {};
}

Result<void> SchemaMerge::join_patterns(Json& out, const Json& a, const Json& b, int depth) {
  const auto closed = [](const Json& schema) {
    const Json* further = schema.find("additionalProperties");
    return further != nullptr && *further != Json(true);
  };
  const auto add = [&](const Json& from, const Json& other) -> Result<void> {
    const Json* patterns = from.find("patternProperties");
    if (patterns == nullptr || !patterns->is_object()) return {};
    const Json* others = other.find("patternProperties");
    for (const auto& [pattern, schema] : patterns->members()) {
      const Json* match = others != nullptr ? others->find(pattern) : nullptr;
      Json& mine = out["patternProperties"];
      if (mine.contains(pattern)) continue;
      if (match != nullptr) {
        CAPSTAN_TRY(mine[pattern], inner(schema, *match, depth));
      } else if (!closed(other)) {
        mine[pattern] = schema;
      } else if (other.find("additionalProperties")->is_bool() && others == nullptr) {
        // The other side allows only the properties that it names; to them this pattern applies.
        const Json* named = other.find("properties");
        if (named == nullptr) continue;
        CAPSTAN_TRY(const Dfa* dfa, values_.pattern(pattern));
        for (const auto& [name, part] : named->members()) {
          if (!dfa->matches(name)) continue;
          const Json before = out["properties"][name];
          CAPSTAN_TRY(out["properties"][name], inner(before, schema, depth));
        }
      } else {
        return cannot("patternProperties",
                      "it is not supported in one of several joined schemas that restrict all properties");
      }
    }
    return {};
  };
  CAPSTAN_CHECK(add(a, b));
  CAPSTAN_CHECK(add(b, a));
  if (out.contains("patternProperties") && out["patternProperties"].is_null()) out.erase("patternProperties");
  return {};
}

Result<void> SchemaMerge::join_items(Json& out, const Json& a, const Json& b, int depth) {
  static const Json kAny = true;
  const auto at = [](const Json& schema, std::size_t index) -> const Json& {
    const Json* prefix = schema.find("prefixItems");
    if (prefix != nullptr && prefix->is_array() && index < prefix->size()) return prefix->items()[index];
    const Json* items = schema.find("items");
    return items != nullptr ? *items : kAny;
  };
  const auto fixed = [](const Json& schema) {
    const Json* prefix = schema.find("prefixItems");
    return prefix != nullptr && prefix->is_array() ? prefix->size() : 0;
  };
  const std::size_t count = std::max(fixed(a), fixed(b));
  for (std::size_t i = 0; i < count; ++i) {
    CAPSTAN_TRY(Json joined, inner(at(a, i), at(b, i), depth));
    out["prefixItems"].push_back(std::move(joined));
  }
  if (!a.contains("items") && !b.contains("items")) return {};
  CAPSTAN_TRY(out["items"], inner(at(a, count), at(b, count), depth));
  return {};
}

Result<void> SchemaMerge::add_keyword(Json& into, const std::string& key, const Json& value, int depth) {
  Json* mine = into.find(key);
  if (mine == nullptr) {
    into[key] = value;
    return {};
  }
  if (*mine == value) return {};
  const bool numbers = mine->is_number() && value.is_number();
  const bool lists = mine->is_array() && value.is_array();
  if (key == "type") {
    *mine = types_of_both(*mine, value);
  } else if (lists && (key == "required" || key == kPatterns || key == kNotPatterns || key == kNotTexts ||
                       key == kNotMultiples)) {
    for (const Json& item : value.items())
      if (!contains(*mine, item)) mine->push_back(item);
  } else if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) {
    if (value.as_double() > mine->as_double()) *mine = value;
  } else if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) {
    if (value.as_double() < mine->as_double()) *mine = value;
  } else if (key == "multipleOf" && numbers) {
    CAPSTAN_TRY(*mine, multiple_of_both(*mine, value));
  } else if (lists && key == "enum") {
    intersect_constants(*mine, value);
  } else if (key == "uniqueItems") {
    *mine = true;  // they differ
  } else if (key == "propertyNames" || key == "unevaluatedProperties" || key == "unevaluatedItems") {
    CAPSTAN_TRY(*mine, inner(*mine, value, depth));
  } else if (!is_unknown(key)) {
    return cannot(key, fmt::format("two different values of '{}' in joined schemas are not supported", key));
  }
  return {};
}

// Those that can be beside the rest.
Json SchemaMerge::possible(const Json& base, const Json& branches, int depth) {
  Json kept = Json::array();
  for (const Json& branch : branches.items()) {
    const auto joined = both(base, branch, depth + 1);
    if (joined && *joined == Json(false)) continue;
    if (std::ranges::find(kept.items(), branch) == kept.items().end()) kept.push_back(branch);
  }
  return kept;
}

Result<void> SchemaMerge::join_branches(Json& out, const Json& a, const Json& b, int depth) {
  const Json* left = a.find("anyOf");
  const Json* right = b.find("anyOf");
  if (left == nullptr || right == nullptr || *left == *right) {
    if (left != nullptr || right != nullptr) out["anyOf"] = left != nullptr ? *left : *right;
    return {};
  }
  if (!left->is_array() || !right->is_array()) return cannot("anyOf", "it is a list of at least one schema");
  const Json lefts = possible(out, *left, depth), rights = possible(out, *right, depth);
  Json branches = Json::array();
  for (const Json& one : lefts.items()) {
    for (const Json& other : rights.items()) {
      CAPSTAN_TRY(Json joined, both(one, other, depth + 1));
      if (joined == Json(false) || contains(branches, joined)) continue;
      branches.push_back(std::move(joined));
      if (branches.size() > kBranchesMax) return cannot("anyOf", "too many combinations of branches");
    }
  }
  out["anyOf"] = std::move(branches);
  return {};
}

// Narrows the constants, if there are some.
Result<bool> SchemaMerge::is_impossible(Json& schema) {
  const Json* type = schema.find("type");
  if (type != nullptr && type->is_array() && type->size() == 0) return true;
  const bool one_type = type == nullptr || type->is_string() || type->size() == 1;
  for (const auto& [low, high] : {std::pair{"minimum", "maximum"},
                                  {"minLength", "maxLength"},
                                  {"minItems", "maxItems"},
                                  {"minProperties", "maxProperties"}}) {
    const auto least = schema.get_double(low), most = schema.get_double(high);
    if (one_type && least && most && *least > *most) return true;
  }
  const Json* required = schema.find("required");
  const Json* properties = schema.find("properties");
  if (one_type && required != nullptr && required->is_array() && properties != nullptr) {
    for (const Json& name : required->items()) {
      const Json* property = name.is_string() ? properties->find(name.as_string()) : nullptr;
      if (property != nullptr && *property == Json(false)) return true;
    }
  }
  Json* constants = schema.find("enum");
  if (constants == nullptr || !constants->is_array()) return false;
  Json kept = Json::array();
  for (const Json& value : constants->items()) {
    const auto fine = values_.fits(schema, value);
    if (!fine || *fine) kept.push_back(value);
  }
  *constants = std::move(kept);
  return constants->size() == 0;
}

Result<Json> SchemaMerge::both(const Json& a, const Json& b, int depth) {
  if (a == Json(false) || b == Json(false)) return Json(false);
  if (a == Json(true)) return flat(b, depth + 1);
  if (b == Json(true)) return flat(a, depth + 1);
  if (!a.is_object() || !b.is_object()) return cannot("allOf", "a schema is an object, true or false");
  if (++work_ > kMergesMax) return cannot("allOf", "too many schemas are to be joined");
  CAPSTAN_TRY(const Json left, flat(a, depth + 1));
  if (a == b) return left;
  CAPSTAN_TRY(const Json right, flat(b, depth + 1));
  if (!left.is_object() || !right.is_object()) return both(left, right, depth + 1);
  Json out = Json::object();
  for (const auto& [key, value] : left.members())
    if (!is_joined_apart(key)) out[key] = value;
  for (const auto& [key, value] : right.members()) {
    if (!is_joined_apart(key)) CAPSTAN_CHECK(add_keyword(out, key, value, depth));
  }
  CAPSTAN_CHECK(join_properties(out, left, right, depth));
  CAPSTAN_CHECK(join_items(out, left, right, depth));
  CAPSTAN_TRY(bool impossible, is_impossible(out));
  if (impossible) return Json(false);
  CAPSTAN_CHECK(join_branches(out, left, right, depth));
  if (const Json* branches = out.find("anyOf"); branches != nullptr && branches->size() == 0)
    return Json(false);
  return out;
}

}  // namespace capstan::engine

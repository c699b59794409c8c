// Both schemas are made flat; what concerns properties is joined as a whole, other keywords one by one.
#include "engine/grammar/schema_merge.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/grammar/formats.h"

namespace capstan::engine {
namespace {

constexpr int kMergesMax = 2'000;
constexpr int kMergeDepthMax = 32;
constexpr std::size_t kBranchesMax = 256;

std::unexpected<Error> cannot(std::string_view keyword, std::string message) {
  return std::unexpected(Error{Code::kInvalid, std::move(message), "/" + std::string(keyword)});
}

Json as_list(const Json& value) { return value.is_array() ? value : Json::array({value}); }

bool contains(const Json& list, const Json& value) {
  return std::ranges::find(list.items(), value) != list.items().end();
}

// Types of both; integer is a kind of number.
Json types_of_both(const Json& a, const Json& b) {
  const Json left = as_list(a), right = as_list(b);
  Json out = Json::array();
  for (const Json& type : left.items()) {
    if (contains(right, type)) {
      out.push_back(type);
    } else if (type == Json("number") && contains(right, "integer")) {
      out.push_back("integer");
    } else if (type == Json("integer") && contains(right, "number")) {
      out.push_back("integer");
    }
  }
  return out;
}

bool is_property_keyword(std::string_view key) {
  static constexpr std::array<std::string_view, 3> kWords = {"properties", "additionalProperties",
                                                             "patternProperties"};
  return std::ranges::find(kWords, key) != kWords.end();
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  static constexpr std::array<std::string_view, 16> kWords = {
      "title",   "description",    "default",     "examples",   "example",  "$comment",  "$schema",
      "$id",     "$defs",          "definitions", "deprecated", "readOnly", "writeOnly", "contentMediaType",
      "$anchor", "contentEncoding"};
  return std::ranges::find(kWords, keyword) != kWords.end();
}

Result<Json> SchemaMerge::flat(const Json& schema, int depth) {
  if (depth > kMergeDepthMax)
    return cannot("allOf", "schemas that refer to each other are nested too deep to be joined");
  if (!schema.is_object()) return schema;
  Json own = Json::object();
  std::vector<Json> others;
  for (const auto& [key, value] : schema.members()) {
    if (key == "$ref" && value.is_string()) {
      CAPSTAN_TRY(Json target, resolve_(value.as_string()));
      others.push_back(std::move(target));
    } else if (key == "allOf" && value.is_array()) {
      for (const Json& part : value.items()) others.push_back(part);
    } else if (key == "pattern" && value.is_string()) {
      own[kPatterns].push_back(value);
    } else if (key == "format" && value.is_string() && !format_pattern(value.as_string()).empty()) {
      own[kPatterns].push_back(format_pattern(value.as_string()));
    } else if (!is_annotation(key)) {
      own[key] = value;
    }
  }
  // OpenAPI's nullable: one more type.
  if (own.find("nullable") != nullptr && own["nullable"] == Json(true) && own.contains("type")) {
    Json types = as_list(own["type"]);
    if (!contains(types, "null")) types.push_back("null");
    own["type"] = std::move(types);
  }
  own.erase("nullable");
  for (const Json& other : others) {
    CAPSTAN_TRY(own, both(own, other, depth + 1));
  }
  return own;
}

// A property that only one side names is what the other side's additionalProperties makes of it.
Result<Json> SchemaMerge::properties_of_both(const Json& a, const Json& b, int depth) {
  Json out = Json::object();
  const Json* patterns =
      a.find("patternProperties") != nullptr ? a.find("patternProperties") : b.find("patternProperties");
  const auto closed = [](const Json& schema) {
    return schema.contains("additionalProperties") || schema.contains("properties") ||
           schema.contains("patternProperties");
  };
  if (patterns != nullptr) {
    if (closed(a) && closed(b))
      return cannot("patternProperties",
                    "patternProperties is not supported in one of several joined schemas");
    out["patternProperties"] = *patterns;
  }
  const auto add = [&](const Json& from, const Json& other) -> Result<void> {
    const Json* properties = from.find("properties");
    if (properties == nullptr || !properties->is_object()) return {};
    const Json* others = other.find("properties");
    for (const auto& [name, schema] : properties->members()) {
      const Json* match = others != nullptr ? others->find(name) : nullptr;
      if (match == nullptr) match = other.find("additionalProperties");
      if (out.find("properties") != nullptr && out["properties"].contains(name)) continue;
      Json joined = schema;
      if (match != nullptr) {
        CAPSTAN_TRY(joined, both(schema, *match, depth + 1));
      }
      out["properties"][name] = std::move(joined);
    }
    return {};
  };
  CAPSTAN_CHECK(add(a, b));
  CAPSTAN_CHECK(add(b, a));
  const Json* left = a.find("additionalProperties");
  const Json* right = b.find("additionalProperties");
  if (left != nullptr && right != nullptr) {
    CAPSTAN_TRY(out["additionalProperties"], both(*left, *right, depth + 1));
  } else if (left != nullptr || right != nullptr) {
    out["additionalProperties"] = left != nullptr ? *left : *right;  // the other side allows everything
  }
  return out;
}

Result<void> SchemaMerge::add_keyword(Json& into, const std::string& key, const Json& value, int depth) {
  Json* mine = into.find(key);
  if (mine == nullptr) {
    into[key] = value;
    return {};
  }
  if (*mine == value) return {};
  const bool numbers = mine->is_number() && value.is_number();
  if (key == "type") {
    *mine = types_of_both(*mine, value);
  } else if (key == "required" && mine->is_array() && value.is_array()) {
    for (const Json& name : value.items())
      if (!contains(*mine, name)) mine->push_back(name);
  } else if (key == kPatterns) {
    for (const Json& pattern : value.items()) mine->push_back(pattern);
  } else if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) {
    if (value.as_double() > mine->as_double()) *mine = value;
  } else if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) {
    if (value.as_double() < mine->as_double()) *mine = value;
  } else if (key == "multipleOf" && mine->is_int() && value.is_int() && mine->as_int() > 0 &&
             value.as_int() > 0 && mine->as_int() < 1'000'000 && value.as_int() < 1'000'000) {
    *mine = std::lcm(mine->as_int(), value.as_int());
  } else if (key == "enum" && mine->is_array() && value.is_array()) {
    Json kept = Json::array();
    for (const Json& item : mine->items())
      if (contains(value, item)) kept.push_back(item);
    *mine = std::move(kept);
  } else if (key == "items" || key == "propertyNames") {
    CAPSTAN_TRY(*mine, both(*mine, value, depth + 1));
  } else if ((key == "anyOf" || key == "oneOf") && mine->is_array() && value.is_array()) {
    if (mine->size() * value.size() > kBranchesMax) return cannot(key, "too many combinations of branches");
    Json branches = Json::array();
    for (const Json& left : mine->items()) {
      for (const Json& right : value.items()) {
        CAPSTAN_TRY(Json joined, both(left, right, depth + 1));
        branches.push_back(std::move(joined));
      }
    }
    *mine = std::move(branches);
  } else {
    return cannot(key, fmt::format("two different values of '{}' in joined schemas are not supported", key));
  }
  return {};
}

Result<Json> SchemaMerge::both(const Json& a, const Json& b, int depth) {
  if (a == Json(false) || b == Json(false)) return Json(false);
  if (a == Json(true)) return flat(b, depth + 1);
  if (b == Json(true)) return flat(a, depth + 1);
  if (!a.is_object() || !b.is_object()) return cannot("allOf", "a schema is an object, true or false");
  if (++work_ > kMergesMax) return cannot("allOf", "too many schemas are to be joined");
  CAPSTAN_TRY(const Json left, flat(a, depth + 1));
  CAPSTAN_TRY(const Json right, flat(b, depth + 1));
  if (!left.is_object()) return both(left, right, depth + 1);
  if (!right.is_object()) return both(left, right, depth + 1);
  Json out = Json::object();
  for (const auto& [key, value] : left.members())
    if (!is_property_keyword(key)) out[key] = value;
  for (const auto& [key, value] : right.members()) {
    if (!is_property_keyword(key)) CAPSTAN_CHECK(add_keyword(out, key, value, depth));
  }
  CAPSTAN_TRY(const Json properties, properties_of_both(left, right, depth));
  for (const auto& [key, value] : properties.members()) out[key] = value;
  return out;
}

}  // namespace capstan::engine

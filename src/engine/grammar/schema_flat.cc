// Takes a schema's top apart: what combines schemas becomes further schemas, which are joined one after another.
#include <optional>

#include "engine/grammar/formats.h"
#include "engine/grammar/schema_merge.h"
#include "engine/grammar/schema_negation.h"
#include "engine/grammar/schema_words.h"

namespace capstan::engine {
namespace {

constexpr int kMergeDepthMax = 32;

// {"properties": {name: false}}, and the other side of a dependency.
Json unless(const std::string& name, Json otherwise) {
  Json without = Json::object({{"properties", Json::object({{name, false}})}});
  return Json::object({{"anyOf", Json::array({std::move(without), std::move(otherwise)})}});
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  static constexpr std::array<std::string_view, 23> kWords = {"title",
                                                              "description",
                                                              "default",
                                                              "examples",
                                                              "example",
                                                              "$comment",
                                                              "$schema",
                                                              "$id",
                                                              "id",
                                                              "$defs",
                                                              "definitions",
                                                              "deprecated",
                                                              "readOnly",
                                                              "writeOnly",
                                                              "$anchor",
                                                              "$dynamicAnchor",
                                                              "$vocabulary",
                                                              "$recursiveAnchor",
                                                              "contentMediaType",
                                                              "contentEncoding",
                                                              "contentSchema",
                                                              "externalDocs",
                                                              "xml"};
  return is_among(kWords, keyword);
}

bool is_combination(std::string_view keyword) {
  static constexpr std::array<std::string_view, 10> kWords = {
      "$ref", "$dynamicRef",       "$recursiveRef",    "allOf",       "oneOf", "not",
      "if",   "dependentRequired", "dependentSchemas", "dependencies"};
  return is_among(kWords, keyword);
}

Result<void> SchemaMerge::take_apart(const Json& schema, const Json::Member& member,
                                     std::vector<Json>& others, int depth) {
  const auto& [key, value] = member;
  if (key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef") {
    if (!value.is_string()) return cannot(key, "it is a string");
    CAPSTAN_TRY(Json target, resolve_(value.as_string()));
    others.push_back(std::move(target));
  } else if (key == "allOf") {
    if (!value.is_array()) return cannot(key, "it is a list of at least one schema");
    for (const Json& part : value.items()) others.push_back(part);
  } else if (key == "oneOf") {
    if (!value.is_array() || value.size() == 0) return cannot(key, "it is a list of at least one schema");
    CAPSTAN_TRY(Json one, exactly_one(value, depth));
    others.push_back(std::move(one));
  } else if (key == "not") {
    CAPSTAN_TRY(Negation opposite, negation(value, resolve_));
    if (opposite.any.empty() && opposite.lost)
      return cannot(key, "'not' of this cannot be enforced and is refused");
    others.push_back(opposite.any.empty() ? Json(false)
                                          : Json::object({{"anyOf", Json(std::move(opposite.any))}}));
  } else if (key == "if") {
    const auto both_of = [](Json a, const Json* b) {
      return b == nullptr ? a : Json::object({{"allOf", Json::array({std::move(a), *b})}});
    };
    const Json* then = schema.find("then");
    const Json* otherwise = schema.find("else");
    if (then == nullptr && otherwise == nullptr) return {};
    others.push_back(Json::object(
        {{"anyOf",
          Json::array({both_of(value, then), both_of(Json::object({{"not", value}}), otherwise)})}}));
  } else if (value.is_object()) {  // dependentRequired, dependentSchemas
    for (const auto& [name, wanted] : value.members()) {
      Json with = Json::object({{"required", Json::array({Json(name)})}});
      if (key == "dependentSchemas") {
        with = Json::object({{"allOf", Json::array({std::move(with), wanted})}});
      } else {
        if (!wanted.is_array()) return cannot(key, "it is an object of lists of names");
        for (const Json& other : wanted.items()) with["required"].push_back(other);
      }
      others.push_back(unless(name, std::move(with)));
    }
  }
  return {};
}

Result<Json> SchemaMerge::flat(const Json& given, int depth) {
  if (depth > kMergeDepthMax)
    return cannot("allOf", "schemas that refer to each other are nested too deep to be joined");
  if (!given.is_object()) return given;
  const Json schema = modern(given);
  Json own = Json::object();
  std::vector<Json> others;
  std::optional<Json> unevaluated_properties, unevaluated_items;  // of all that is joined here
  for (const auto& member : schema.members()) {
    const auto& [key, value] = member;
    if (is_combination(key)) {
      CAPSTAN_CHECK(take_apart(schema, member, others, depth));
    } else if (key == "pattern" && value.is_string()) {
      own[kPatterns].push_back(value);
    } else if (key == "format") {
      if (!value.is_string()) return cannot(key, "it is a string");
      if (const auto pattern = format_pattern(value.as_string()); !pattern.empty())
        own[kPatterns].push_back(pattern);
    } else if (key == "const" || (key == "enum" && value.is_array())) {
      const Json list = key == "const" ? Json::array({value}) : value;
      if (own.contains("enum"))
        intersect_constants(own["enum"], list);
      else
        own["enum"] = list;
    } else if (key == "unevaluatedProperties") {
      unevaluated_properties = value;
    } else if (key == "unevaluatedItems") {
      unevaluated_items = value;
    } else if (!is_annotation(key) && key != "then" && key != "else") {
      own[key] = value;
    }
  }
  // OpenAPI's nullable: one more type.
  if (own.get_bool("nullable") == true && own.contains("type")) {
    Json types = as_list(own["type"]);
    if (!contains(types, "null")) types.push_back("null");
    own["type"] = std::move(types);
  }
  own.erase("nullable");
  for (const Json& other : others) {
    CAPSTAN_TRY(own, both(own, other, depth + 1));
    if (!own.is_object()) return own;
  }
  // With a choice left, what was evaluated is known only in its branches.
  const bool open = own.contains("anyOf");
  if (unevaluated_properties && !own.contains("additionalProperties"))
    own[open ? "unevaluatedProperties" : "additionalProperties"] = *unevaluated_properties;
  if (unevaluated_items && !own.contains("items"))
    own[open ? "unevaluatedItems" : "items"] = *unevaluated_items;
  return own;
}

// A branch excludes those that it has values in common with.
Result<Json> SchemaMerge::exactly_one(const Json& list, int depth) {
  constexpr std::size_t kComparedMax = 48;
  const Json plain = Json::object({{"anyOf", list}});
  if (list.size() < 2 || list.size() > kComparedMax) return plain;
  std::vector<Json> branches(list.size(), Json::object({{"allOf", Json::array()}}));
  for (std::size_t i = 0; i < list.size(); ++i) branches[i]["allOf"].push_back(list.items()[i]);
  bool overlap = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (are_disjoint(list.items()[i], list.items()[j], depth)) continue;
      overlap = true;
      branches[i]["allOf"].push_back(Json::object({{"not", list.items()[j]}}));
      branches[j]["allOf"].push_back(Json::object({{"not", list.items()[i]}}));
    }
  }
  if (!overlap) return plain;
  Json kept = Json::array();
  for (const Json& branch : branches) {
    auto joined = flat(branch, depth + 1);
    if (joined && *joined != Json(false)) kept.push_back(*std::move(joined));
  }
  return kept.size() == 0 ? plain : Json::object({{"anyOf", std::move(kept)}});
}

bool SchemaMerge::are_disjoint(const Json& a, const Json& b, int depth) {
  constexpr int kTrialMax = 400;
  const int before = work_;
  work_ = std::max(work_, kMergesMax - kTrialMax);
  const auto joined = both(a, b, depth + 1);
  const int spent = work_ - std::max(before, kMergesMax - kTrialMax);
  work_ = before + spent / 8;
  return joined && *joined == Json(false);
}

}  // namespace capstan::engine

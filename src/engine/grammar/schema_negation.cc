// Each keyword that can be broken gives one schema or several. They name their type, since a keyword binds
// only values of its own: what is no string satisfies minLength.
#include "engine/grammar/schema_negation.h"

#include <algorithm>
#include <array>

namespace capstan::engine {
namespace {

constexpr std::array<std::string_view, 6> kTypes = {"null", "boolean", "number", "string", "array", "object"};
constexpr std::size_t kNumbersMax = 16;  // of an enum: the gaps between them are as many schemas
constexpr std::size_t kPairsMax = 32;    // of a oneOf's branches

Json no(const Json& schema) { return Json::object({{"not", schema}}); }
Json all_of(Json a, Json b) { return Json::object({{"allOf", Json::array({std::move(a), std::move(b)})}}); }

Json types_but(const std::vector<std::string>& left_out) {
  Json types = Json::array();
  for (const std::string_view type : kTypes)
    if (std::ranges::find(left_out, type) == left_out.end()) types.push_back(type);
  return types;
}

// One object or array member that is wrong.
Json object_with(const std::string& name, Json schema, bool required) {
  Json out = Json::object({{"type", "object"}});
  if (required) out["required"] = Json::array({Json(name)});
  out["properties"] = Json::object({{name, std::move(schema)}});
  return out;
}
Json array_with(std::size_t index, Json schema) {
  Json prefix = Json::array();
  for (std::size_t i = 0; i < index; ++i) prefix.push_back(true);
  prefix.push_back(std::move(schema));
  return Json::object({{"type", "array"}, {"prefixItems", std::move(prefix)}, {"minItems", index + 1}});
}

class Negator {
 public:
  Negator(const Json& schema, const SchemaMerge::Resolve& resolve) : schema_(schema), resolve_(resolve) {}

  Result<Negation> run() {
    for (const auto& [word, value] : schema_.members()) {
      if (is_annotation(word)) continue;
      if (scalar(word, value) || container(word, value)) continue;
      CAPSTAN_CHECK(combination(word, value));
    }
    return std::move(out_);
  }

 private:
  void add(Json schema) { out_.any.push_back(std::move(schema)); }

  // A bound of `type` that is broken by the bound `opposite`, `step` away.
  void bound(std::string_view type, std::string_view opposite, const Json& value, int step) {
    if (!value.is_number()) return;
    const double limit = value.as_double() + step;
    if (step != 0 && limit < 0) return;
    add(Json::object({{"type", type},
                      {std::string(opposite), step == 0 ? value : Json(static_cast<std::int64_t>(limit))}}));
  }

  bool scalar(const std::string& word, const Json& value) {
    if (word == "type") {
      std::vector<std::string> named;
      for (const Json& type : value.is_array() ? value.items() : Json::Array{value}) {
        if (!type.is_string()) continue;
        const bool integer = type.as_string() == "integer";
        out_.lost |= integer;  // numbers that are no integers
        named.push_back(integer ? "number" : type.as_string());
      }
      if (schema_.get_bool("nullable") == true) named.push_back("null");
      add(Json::object({{"type", types_but(named)}}));
    } else if (word == "const") {
      constants({value});
    } else if (word == "enum") {
      if (value.is_array()) constants(value.items());
    } else if (word == "minimum") {
      bound("number", "exclusiveMaximum", value, 0);
    } else if (word == "maximum") {
      bound("number", "exclusiveMinimum", value, 0);
    } else if (word == "exclusiveMinimum") {
      bound("number", "maximum", value, 0);
    } else if (word == "exclusiveMaximum") {
      bound("number", "minimum", value, 0);
    } else if (word == "minLength") {
      bound("string", "maxLength", value, -1);
    } else if (word == "maxLength") {
      bound("string", "minLength", value, 1);
    } else if (word == "pattern") {
      add(Json::object({{"type", "string"}, {std::string(kNotPatterns), Json::array({value})}}));
    } else if (word == "multipleOf") {
      add(Json::object({{"type", "number"}, {std::string(kNotMultiples), Json::array({value})}}));
    } else if (word == kNotMultiples) {
      for (const Json& step : value.items()) add(Json::object({{"type", "number"}, {"multipleOf", step}}));
    } else if (word == kNotTexts) {
      add(Json::object({{"type", "string"}, {"enum", value}}));
    } else if (word == kPatterns || word == kNotPatterns) {
      for (const Json& pattern : value.items())
        add(Json::object(
            {{"type", "string"},
             {std::string(word == kPatterns ? kNotPatterns : kPatterns), Json::array({pattern})}}));
    } else {
      return false;
    }
    return true;
  }

  // All values but these.
  void constants(const Json::Array& values) {
    std::vector<std::string> types;
    std::vector<Json> numbers;
    Json texts = Json::array(), truths = Json::array({true, false});
    for (const Json& value : values) {
      types.emplace_back(value.is_number() ? "number" : value.type_name());
      if (value.is_number()) numbers.push_back(value);
      if (value.is_string()) texts.push_back(value);
      if (value.is_bool()) std::erase(truths.items(), value);
      out_.lost |= value.is_array() || value.is_object();
    }
    add(Json::object({{"type", types_but(types)}}));
    if (texts.size() > 0) add(Json::object({{"type", "string"}, {std::string(kNotTexts), std::move(texts)}}));
    if (truths.size() == 1) add(Json::object({{"enum", std::move(truths)}}));
    std::ranges::sort(numbers, {}, &Json::as_double);
    if (numbers.size() > kNumbersMax) {
      out_.lost = true;
      return;
    }
    for (std::size_t i = 0; i <= numbers.size() && !numbers.empty(); ++i) {
      Json gap = Json::object({{"type", "number"}});
      if (i > 0) gap["exclusiveMinimum"] = numbers[i - 1];
      if (i < numbers.size()) gap["exclusiveMaximum"] = numbers[i];
      add(std::move(gap));
    }
  }

  bool container(const std::string& word, const Json& value) {
    if (word == "minItems") {
      bound("array", "maxItems", value, -1);
    } else if (word == "maxItems") {
      bound("array", "minItems", value, 1);
    } else if (word == "minProperties") {
      bound("object", "maxProperties", value, -1);
    } else if (word == "maxProperties") {
      bound("object", "minProperties", value, 1);
    } else if (word == "prefixItems") {
      for (std::size_t i = 0; i < value.size(); ++i) add(array_with(i, no(value.items()[i])));
    } else if (word == "items") {
      const Json* prefix = schema_.find("prefixItems");
      add(array_with(prefix != nullptr ? prefix->size() : 0, no(value)));
    } else if (word == "contains") {
      if (schema_.contains("minContains") || schema_.contains("maxContains"))
        out_.lost = true;
      else
        add(Json::object({{"type", "array"}, {"items", no(value)}}));
    } else if (word == "required" && value.is_array()) {
      for (const Json& name : value.items())
        if (name.is_string()) add(object_with(name.as_string(), false, false));
    } else if (word == "properties" && value.is_object()) {
      for (const auto& [name, part] : value.members())
        if (part != Json(true)) add(object_with(name, no(part), true));
    } else if (word == "dependentRequired" && value.is_object()) {
      for (const auto& [name, wanted] : value.members())
        for (const Json& other : wanted.is_array() ? wanted.items() : Json::Array{})
          if (other.is_string())
            add(all_of(object_with(name, true, true), object_with(other.as_string(), false, false)));
    } else if (word == "dependentSchemas" && value.is_object()) {
      for (const auto& [name, part] : value.members()) add(all_of(object_with(name, true, true), no(part)));
    } else {
      return false;
    }
    return true;
  }

  Result<void> combination(const std::string& word, const Json& value) {
    const bool list = value.is_array();
    if (word == "$ref" && value.is_string()) {
      CAPSTAN_TRY(const Json target, resolve_(value.as_string()));
      add(no(target));
    } else if (word == "allOf" && list) {
      for (const Json& part : value.items()) add(no(part));
    } else if (word == "anyOf" && list) {
      add(none_of(value));
    } else if (word == "oneOf" && list) {
      add(none_of(value));
      if (value.size() * value.size() > 2 * kPairsMax) {
        out_.lost = true;
        return {};
      }
      for (std::size_t i = 0; i < value.size(); ++i)
        for (std::size_t j = 0; j < i; ++j) add(all_of(value.items()[i], value.items()[j]));
    } else if (word == "not") {
      add(value);
    } else if (word == "if") {
      if (const Json* then = schema_.find("then")) add(all_of(value, no(*then)));
      if (const Json* otherwise = schema_.find("else")) add(all_of(no(value), no(*otherwise)));
    } else if (constrains(word)) {
      out_.lost = true;
    }
    return {};
  }

  static Json none_of(const Json& list) {
    Json out = Json::object({{"allOf", Json::array()}});
    for (const Json& part : list.items()) out["allOf"].push_back(no(part));
    return out;
  }
  // What no schema says the opposite of.
  static bool constrains(std::string_view word) {
    static constexpr std::array<std::string_view, 8> kWords = {
        "format",        "uniqueItems",           "additionalProperties", "patternProperties",
        "propertyNames", "unevaluatedProperties", "unevaluatedItems",     "minContains"};
    return std::ranges::find(kWords, word) != kWords.end();
  }

  const Json& schema_;
  const SchemaMerge::Resolve& resolve_;
  Negation out_;
};

}  // namespace

Result<Negation> negation(const Json& schema, const SchemaMerge::Resolve& resolve) {
  if (schema == Json(true)) return Negation{};
  if (schema == Json(false)) return Negation{.any = {Json(true)}};
  if (!schema.is_object()) return fail(Code::kInvalid, "a schema is an object, true or false");
  const Json current = modern(schema);
  return Negator(current, resolve).run();
}

Json modern(const Json& schema) {
  static constexpr std::array<std::string_view, 6> kOld = {
      "exclusiveMinimum", "exclusiveMaximum", "dependencies", "additionalItems", "items", "definitions"};
  if (!schema.is_object() || std::ranges::none_of(kOld, [&](auto word) { return schema.contains(word); }))
    return schema;
  Json out = schema;
  for (const auto& [exclusive, plain] :
       {std::pair{"exclusiveMinimum", "minimum"}, {"exclusiveMaximum", "maximum"}}) {
    const Json* flag = out.find(exclusive);
    if (flag == nullptr || !flag->is_bool()) continue;
    const Json* limit = out.find(plain);
    if (flag->as_bool() && limit != nullptr) {
      const Json value = *limit;
      out.erase(plain);
      out[exclusive] = value;
    } else {
      out.erase(exclusive);
    }
  }
  if (const Json* items = out.find("items"); items != nullptr && items->is_array()) {
    const Json prefix = *items;
    out.erase("items");
    if (const Json* further = out.find("additionalItems")) out["items"] = Json(*further);
    if (prefix.size() > 0) out["prefixItems"] = prefix;
  }
  out.erase("additionalItems");
  if (const Json* dependencies = out.find("dependencies");
      dependencies != nullptr && dependencies->is_object()) {
    const Json list = *dependencies;
    for (const auto& [name, wanted] : list.members())
      out[wanted.is_array() ? "dependentRequired" : "dependentSchemas"][name] = wanted;
  }
  out.erase("dependencies");
  return out;
}

}  // namespace capstan::engine

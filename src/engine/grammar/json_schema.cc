// What all kinds of schemas share: references, unions, constants, choice of type.
#include "engine/grammar/json_schema.h"

#include <algorithm>
#include <array>

#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {"null",   "boolean", "integer", "number",
                                                    "string", "array",   "object"};
constexpr std::size_t kLiteralsMax = 4'096;

// What a schema without `type` speaks of.
struct TypeWord {
  std::string_view keyword, type;
};
constexpr TypeWord kTypeWords[] = {{"properties", "object"},
                                   {"required", "object"},
                                   {"additionalProperties", "object"},
                                   {"patternProperties", "object"},
                                   {"propertyNames", "object"},
                                   {"minProperties", "object"},
                                   {"maxProperties", "object"},
                                   {"items", "array"},
                                   {"prefixItems", "array"},
                                   {"minItems", "array"},
                                   {"maxItems", "array"},
                                   {"uniqueItems", "array"},
                                   {"minLength", "string"},
                                   {"maxLength", "string"},
                                   {"pattern", "string"},
                                   {"format", "string"},
                                   {kPatterns, "string"},
                                   {"minimum", "number"},
                                   {"maximum", "number"},
                                   {"exclusiveMinimum", "number"},
                                   {"exclusiveMaximum", "number"},
                                   {"multipleOf", "number"}};
// Words of JSON schema that are known and not enforced.
constexpr std::array<std::string_view, 15> kRefused = {"not",
                                                       "if",
                                                       "then",
                                                       "else",
                                                       "contains",
                                                       "minContains",
                                                       "maxContains",
                                                       "dependencies",
                                                       "dependentRequired",
                                                       "dependentSchemas",
                                                       "unevaluatedItems",
                                                       "unevaluatedProperties",
                                                       "$dynamicRef",
                                                       "$recursiveRef",
                                                       "additionalItems"};

bool is_plain_reference(const Json& schema) {
  if (!schema.contains("$ref")) return false;
  return std::ranges::all_of(schema.members(), [](const Json::Member& member) {
    return member.first == "$ref" || is_annotation(member.first);
  });
}

Result<std::vector<std::string_view>> types_of(const Json& schema, const std::string& pointer) {
  std::vector<std::string_view> types;
  const Json* type = schema.find("type");
  if (type == nullptr) {
    for (const TypeWord& word : kTypeWords) {
      if (schema.contains(word.keyword) && std::ranges::find(types, word.type) == types.end())
        types.push_back(word.type);
    }
    return types;
  }
  const Json list = type->is_array() ? *type : Json::array({*type});
  for (const Json& item : list.items()) {
    const auto known = item.is_string() ? std::ranges::find(kTypes, item.as_string()) : kTypes.end();
    if (known == kTypes.end())
      return schema_error(
          pointer, "type",
          fmt::format("{} is no type; types are null, boolean, integer, number, string, array, object",
                      item.dump()));
    types.push_back(*known);
  }
  return types;
}

}  // namespace

std::string pointer_to(const std::string& pointer, std::string_view key) {
  std::string out = pointer + "/";
  for (const char c : key) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += c;
  }
  return out;
}

std::unexpected<Error> schema_error(const std::string& pointer, std::string_view keyword,
                                    std::string_view why) {
  const std::string at = keyword.empty() ? pointer : pointer_to(pointer, keyword);
  return std::unexpected(
      Error{Code::kInvalid, fmt::format("{}: {}", at.empty() ? "the schema" : at, why), at});
}

Result<RuleId> SchemaCompiler::compile() {
  const RuleId root = rule_for(root_, "");
  while (!pending_.empty() && !build_.overflowed()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    CAPSTAN_TRY(const NodeId end, value(next.schema, next.pointer, build_.rule_start(next.rule)));
    build_.end_rule(next.rule, end);
  }
  if (build_.overflowed()) {
    return fail(
        Code::kInvalid,
        "the schema needs more than {} states; make it smaller (bounds of lengths, numbers of properties)",
        kNodesMax);
  }
  return root;
}

RuleId SchemaCompiler::rule_for(const Json& schema, const std::string& pointer) {
  const auto [known, fresh] = rules_.try_emplace(schema.dump(), 0);
  if (fresh) {
    known->second = build_.new_rule();
    pending_.push_back({known->second, schema, pointer});
  }
  return known->second;
}

Result<Json> SchemaCompiler::target(const std::string& reference) const {
  const auto wrong = [&](std::string_view why) {
    return std::unexpected(
        Error{Code::kInvalid, fmt::format("the reference '{}' {}", reference, why), "/$ref"});
  };
  if (!reference.starts_with('#'))
    return wrong("leads outside the schema; only \"#\" and \"#/…\" are supported");
  const Json* at = &root_;
  std::string_view rest = std::string_view(reference).substr(1);
  while (!rest.empty()) {
    if (rest.front() != '/') return wrong("is no JSON pointer; \"#/…\" is");
    rest.remove_prefix(1);
    std::string key(rest.substr(0, rest.find('/')));
    rest.remove_prefix(key.size());
    for (const auto& [escape, plain] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
      for (std::size_t found = 0; (found = key.find(escape, found)) != std::string::npos; ++found)
        key.replace(found, 2, plain);
    }
    if (at->is_array()) {
      const std::size_t index = key.size() < 7 && !key.empty() &&
                                        std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; })
                                    ? static_cast<std::size_t>(std::atoi(key.c_str()))
                                    : at->size();
      at = index < at->size() ? &at->items()[index] : nullptr;
    } else {
      at = at->find(key);
    }
    if (at == nullptr) return wrong("leads nowhere");
  }
  return *at;
}

Result<NodeId> SchemaCompiler::value(const Json& given, const std::string& pointer, NodeId from) {
  if (++work_ > kSchemaWorkMax)
    return schema_error("", "", fmt::format("it has more than {} subschemas", kSchemaWorkMax));
  if (given == Json(true)) return build_.call(from, json_.any_value());
  if (given == Json(false)) return build_.new_node();  // no edge leads there
  if (!given.is_object())
    return schema_error(pointer, "",
                        fmt::format("a schema is an object, true or false, not {}", given.type_name()));
  for (const auto& [key, content] : given.members()) {
    if (std::ranges::find(kRefused, key) != kRefused.end())
      return schema_error(pointer, key, fmt::format("'{}' cannot be enforced and is refused", key));
    if (key == "uniqueItems" && content == Json(true) && given.get_int("maxItems").value_or(2) > 1)
      return schema_error(pointer, key, "'uniqueItems' cannot be enforced beyond one item and is refused");
    if ((key == "$ref" && !content.is_string()) ||
        ((key == "allOf" || key == "anyOf" || key == "oneOf") && !(content.is_array() && content.size() > 0)))
      return schema_error(pointer, key,
                          key == "$ref" ? "it is a string" : "it is a list of at least one schema");
  }
  const auto at_pointer = [&](Error error) {
    return schema_error(pointer,
                        std::string_view(error.field).substr(std::min<std::size_t>(1, error.field.size())),
                        error.message);
  };
  if (is_plain_reference(given)) {
    auto found = target(given.find("$ref")->as_string());
    if (!found) return at_pointer(found.error());
    return build_.call(from, rule_for(*found, given.find("$ref")->as_string().substr(1)));
  }
  auto schema = merge_.flat(given);
  if (!schema) return at_pointer(schema.error());
  // What was joined may be as deep as one likes: it is compiled from the queue.
  if (given.contains("allOf") || given.contains("$ref")) return build_.call(from, rule_for(*schema, pointer));
  if (schema->contains("const") || schema->contains("enum")) return literals(*schema, pointer, from);
  for (const std::string_view keyword : {"anyOf", "oneOf"})
    if (schema->contains(keyword)) return branches(*schema, keyword, pointer, from);
  CAPSTAN_TRY(const auto types, types_of(*schema, pointer));
  if (types.empty() && schema->contains("type")) return build_.new_node();
  if (types.empty()) return build_.call(from, json_.any_value());
  const NodeId behind = build_.new_node();
  for (const std::string_view type : types) {
    const NodeId begin = build_.new_node();
    build_.empty(from, begin);
    CAPSTAN_TRY(const NodeId end, typed(*schema, type, pointer, begin));
    build_.empty(end, behind);
  }
  return behind;
}

Result<NodeId> SchemaCompiler::branches(const Json& schema, std::string_view keyword,
                                        const std::string& pointer, NodeId from) {
  Json base = schema;
  base.erase(keyword);
  const NodeId behind = build_.new_node();
  const Json& list = *schema.find(keyword);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}/{}/{}", pointer, keyword, i);
    const NodeId begin = build_.new_node();
    build_.empty(from, begin);
    if (base.size() == 0) {
      CAPSTAN_TRY(const NodeId end, value(list.items()[i], at, begin));
      build_.empty(end, behind);
      continue;
    }
    auto joined = merge_.both(base, list.items()[i]);
    if (!joined)
      return schema_error(at,
                          std::string_view(joined.error().field)
                              .substr(std::min<std::size_t>(1, joined.error().field.size())),
                          joined.error().message);
    build_.call(begin, rule_for(*joined, at), behind);
  }
  return behind;
}

Result<NodeId> SchemaCompiler::literals(const Json& schema, const std::string& pointer, NodeId from) {
  Json list = schema.contains("const") ? Json::array({*schema.find("const")}) : *schema.find("enum");
  if (!list.is_array() || list.size() == 0)
    return schema_error(pointer, "enum", "it is a list of at least one value");
  if (list.size() > kLiteralsMax)
    return schema_error(pointer, "enum",
                        fmt::format("{} values; at most {} are supported", list.size(), kLiteralsMax));
  const NodeId behind = build_.new_node();
  for (const Json& literal : list.items()) {
    if (schema.contains("const") && schema.contains("enum")) {
      const auto& allowed = schema.find("enum")->items();
      if (std::ranges::find(allowed, literal) == allowed.end()) continue;
    }
    CAPSTAN_TRY(const bool fits, admits(schema, literal, pointer));
    if (fits) build_.empty(build_.literal(from, literal.dump()), behind);
  }
  return behind;
}

Result<NodeId> SchemaCompiler::typed(const Json& schema, std::string_view type, const std::string& pointer,
                                     NodeId from) {
  if (type == "null") return build_.literal(from, "null");
  if (type == "boolean") {
    const NodeId behind = build_.new_node();
    build_.empty(build_.literal(from, "true"), behind);
    build_.empty(build_.literal(from, "false"), behind);
    return behind;
  }
  if (type == "string") return string(schema, pointer, from);
  if (type == "array") return array(schema, pointer, from);
  if (type == "object") return object(schema, pointer, from);
  return number(schema, type == "integer", pointer, from);
}

Result<std::uint32_t> SchemaCompiler::count(const Json& schema, std::string_view keyword,
                                            std::uint32_t otherwise, const std::string& pointer) const {
  const Json* bound = schema.find(keyword);
  if (bound == nullptr) return otherwise;
  // 3.0 is an integer, too.
  const bool whole =
      bound->is_int() ||
      (bound->is_number() &&
       bound->as_double() == static_cast<double>(static_cast<std::int64_t>(bound->as_double())));
  if (!whole || bound->as_double() < 0) return schema_error(pointer, keyword, "it is an integer from 0");
  return static_cast<std::uint32_t>(std::min(bound->as_double(), 4e9));
}

Result<RuleId> add_json_schema(GrammarBuilder& build, const Json& schema) {
  const std::size_t bytes = schema.dump().size();
  if (bytes > kSchemaBytesMax)
    return schema_error("", "",
                        fmt::format("it has {} bytes; at most {} are supported", bytes, kSchemaBytesMax));
  return SchemaCompiler(build, schema).compile();
}

RuleId add_json_object(GrammarBuilder& build) { return JsonRules(build).any_object(); }

Result<std::shared_ptr<const Grammar>> compile_json_schema(const Json& schema) {
  GrammarBuilder build;
  CAPSTAN_TRY(const RuleId root, add_json_schema(build, schema));
  return std::move(build).finish(root);
}

}  // namespace capstan::engine

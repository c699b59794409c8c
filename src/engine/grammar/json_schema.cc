// What all kinds of schemas share: references, unions, constants, choice of type.
#include "engine/grammar/json_schema.h"

#include <algorithm>
#include <array>

#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {"null",   "boolean", "integer", "number",
                                                    "string", "array",   "object"};
constexpr std::size_t kLiteralsMax = 16'384;

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
                                   {"contains", "array"},
                                   {"minLength", "string"},
                                   {"maxLength", "string"},
                                   {"pattern", "string"},
                                   {"format", "string"},
                                   {kPatterns, "string"},
                                   {kNotPatterns, "string"},
                                   {kNotTexts, "string"},
                                   {"unevaluatedProperties", "object"},
                                   {"unevaluatedItems", "array"},
                                   {"minimum", "number"},
                                   {"maximum", "number"},
                                   {"exclusiveMinimum", "number"},
                                   {"exclusiveMaximum", "number"},
                                   {"multipleOf", "number"},
                                   {kNotMultiples, "number"}};
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

namespace {

// A subschema with this $anchor, $dynamicAnchor or $id.
const Json* named_schema(const Json& at, std::string_view name, int depth = 0) {
  if (depth > 64) return nullptr;
  if (at.is_object()) {
    for (const std::string_view word : {"$anchor", "$dynamicAnchor", "$id", "id"}) {
      const Json* own = at.find(word);
      if (own == nullptr || !own->is_string() || name.empty()) continue;
      std::string_view text = own->as_string();
      if (word.ends_with("id") && text.starts_with('#')) text.remove_prefix(1);
      if (text == name) return &at;
    }
    for (const auto& [key, value] : at.members())
      if (const Json* found = named_schema(value, name, depth + 1)) return found;
  } else if (at.is_array()) {
    for (const Json& item : at.items())
      if (const Json* found = named_schema(item, name, depth + 1)) return found;
  }
  return nullptr;
}

// One key of a JSON pointer in a URL.
std::string unescaped(std::string key) {
  for (std::size_t at = 0; (at = key.find('%', at)) != std::string::npos; ++at) {
    const auto digit = [&](std::size_t i) {
      const char c = i < key.size() ? static_cast<char>(key[i] | 32) : '\0';
      return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    const int high = digit(at + 1), low = digit(at + 2);
    if (high >= 0 && low >= 0) key.replace(at, 3, 1, static_cast<char>(high * 16 + low));
  }
  for (const auto& [escape, plain] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
    for (std::size_t found = 0; (found = key.find(escape, found)) != std::string::npos; ++found)
      key.replace(found, 2, plain);
  }
  return key;
}

}  // namespace

Result<Json> SchemaCompiler::target(const std::string& reference) const {
  const auto wrong = [&](std::string_view why) {
    return std::unexpected(
        Error{Code::kInvalid, fmt::format("the reference '{}' {}", reference, why), "/$ref"});
  };
  const std::size_t hash = std::min(reference.find('#'), reference.size());
  const std::string document = reference.substr(0, hash);
  const Json* at = document.empty() ? &root_ : named_schema(root_, document);
  if (at == nullptr)
    return wrong("leads outside the schema; only what stands in the schema itself can be referred to");
  std::string_view rest = std::string_view(reference).substr(std::min(hash + 1, reference.size()));
  if (!rest.empty() && rest.front() != '/') {
    at = named_schema(*at, rest);
    if (at == nullptr) return wrong("leads nowhere: no subschema has this $anchor");
    return *at;
  }
  while (!rest.empty()) {
    rest.remove_prefix(1);
    std::string key(rest.substr(0, rest.find('/')));
    rest.remove_prefix(key.size());
    key = unescaped(std::move(key));
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
  if (std::ranges::any_of(given.members(),
                          [](const Json::Member& member) { return is_combination(member.first); }))
    return build_.call(from, rule_for(*schema, pointer));
  if (schema->contains("enum")) return literals(*schema, pointer, from);
  if (schema->contains("anyOf")) return branches(*schema, pointer, from);
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

Result<NodeId> SchemaCompiler::branches(const Json& schema, const std::string& pointer, NodeId from) {
  Json base = schema;
  base.erase("anyOf");
  // They mean what base and branch name together.
  Json unevaluated = Json::object();
  for (const std::string_view word : {"unevaluatedProperties", "unevaluatedItems"}) {
    if (const Json* value = base.find(word)) unevaluated[word] = Json(*value);
    base.erase(word);
  }
  const NodeId behind = build_.new_node();
  const Json& list = *schema.find("anyOf");
  std::vector<Json> constants;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string at = fmt::format("{}/anyOf/{}", pointer, i);
    const Json& branch = list.items()[i];
    const NodeId begin = build_.new_node();
    build_.empty(from, begin);
    if (base.size() == 0 && unevaluated.size() == 0 && !branch.contains("const") &&
        !branch.contains("enum")) {
      CAPSTAN_TRY(const NodeId end, value(branch, at, begin));
      build_.empty(end, behind);
      continue;
    }
    auto joined = merge_.both(base, branch);
    if (!joined)
      return schema_error(at,
                          std::string_view(joined.error().field)
                              .substr(std::min<std::size_t>(1, joined.error().field.size())),
                          joined.error().message);
    if (*joined == Json(false)) continue;
    if (const Json* values = joined->find("enum"); values != nullptr && values->is_array()) {
      for (const Json& literal : values->items()) {
        CAPSTAN_TRY(const bool fits, admits(*joined, literal, at));
        if (fits) constants.push_back(literal);
      }
      continue;
    }
    if (joined->is_object())
      for (const auto& [word, value] : unevaluated.members()) (*joined)[word] = value;
    build_.call(begin, rule_for(*joined, at), behind);
  }
  emit_constants(constants, from, behind);
  return behind;
}

Result<NodeId> SchemaCompiler::literals(const Json& schema, const std::string& pointer, NodeId from) {
  const Json& list = *schema.find("enum");
  if (!list.is_array() || list.size() == 0)
    return schema_error(pointer, "enum", "it is a list of at least one value");
  if (list.size() > kLiteralsMax)
    return schema_error(pointer, "enum",
                        fmt::format("{} values; at most {} are supported", list.size(), kLiteralsMax));
  std::vector<Json> values;
  for (const Json& literal : list.items()) {
    CAPSTAN_TRY(const bool fits, admits(schema, literal, pointer));
    if (fits) values.push_back(literal);
  }
  const NodeId behind = build_.new_node();
  emit_constants(values, from, behind);
  return behind;
}

void SchemaCompiler::emit_constants(const std::vector<Json>& values, NodeId from, NodeId behind) {
  std::vector<std::string> texts;
  for (const Json& value : values) texts.push_back(value.dump());
  build_.literals(from, std::move(texts), behind);
}

Result<bool> SchemaCompiler::allows_strings(const Json& schema, const std::string& pointer) const {
  if (!schema.contains("type")) return true;
  CAPSTAN_TRY(const auto types, types_of(schema, pointer));
  return std::ranges::find(types, "string") != types.end();
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
  const std::string text = schema.dump();
  const std::size_t bytes = text.size();
  // Keywords of our own begin so.
  if (text.find(R"("\u0001\u0002)") != std::string::npos)
    return schema_error("", "", "a string begins with the control characters U+0001 U+0002");
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

// Objects.
//
// An object is a row of nodes, one before each property, in two tracks: nothing written yet, and something
// written (a comma is due). With minProperties or maxProperties there is a track for every number of
// properties.
#include <algorithm>

#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::size_t kCountedNodesMax = 20'000;  // properties × tracks
constexpr std::size_t kPatternsMax = 16;

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

}  // namespace

Result<std::vector<SchemaCompiler::Property>> SchemaCompiler::properties(const Json& schema,
                                                                         const std::string& pointer) {
  std::vector<Property> named;
  if (const Json* list = schema.find("properties")) {
    if (!list->is_object()) return schema_error(pointer, "properties", "it is an object of schemas");
    for (const auto& [name, property] : list->members()) named.push_back({name, property});
  }
  const Json* required = schema.find("required");
  if (required != nullptr && !required->is_array())
    return schema_error(pointer, "required", "it is a list of names");
  std::map<std::string_view, std::size_t> index;
  for (std::size_t i = 0; i < named.size(); ++i) index[named[i].name] = i;
  std::vector<std::string> missing;
  for (std::size_t i = 0; required != nullptr && i < required->size(); ++i) {
    const Json& name = required->items()[i];
    if (!name.is_string()) return schema_error(pointer, "required", "it is a list of names");
    if (const auto known = index.find(name.as_string()); known != index.end()) {
      named[known->second].required = true;
    } else if (std::ranges::find(missing, name.as_string()) == missing.end()) {
      missing.push_back(name.as_string());
    }
  }
  for (Property& property : named) CAPSTAN_CHECK(bind_by_patterns(schema, property, true, pointer));
  for (const std::string& name : missing) {
    named.push_back({name, true, true});
    CAPSTAN_CHECK(bind_by_patterns(schema, named.back(), false, pointer));
  }
  // Properties that are forbidden count for nothing, unless they are required.
  std::erase_if(
      named, [](const Property& property) { return property.schema == Json(false) && !property.required; });
  return named;
}

// What patternProperties, additionalProperties and propertyNames say of a property.
Result<void> SchemaCompiler::bind_by_patterns(const Json& schema, Property& property, bool named,
                                              const std::string& pointer) {
  if (const Json* patterns = schema.find("patternProperties"); patterns != nullptr && patterns->is_object()) {
    for (const auto& [pattern, part] : patterns->members()) {
      auto dfa = merge_.values().pattern(pattern);
      const std::string at = pointer_to(pointer, "patternProperties");
      if (!dfa) return schema_error(at, pattern, dfa.error().message);
      if (!(*dfa)->matches(property.name)) continue;
      named = true;
      auto joined = merge_.both(property.schema, part);
      if (!joined) return schema_error(at, pattern, joined.error().message);
      property.schema = *std::move(joined);
    }
  }
  if (const Json* further = schema.find("additionalProperties"); further != nullptr && !named)
    property.schema = *further;
  if (const Json* names = schema.find("propertyNames")) {
    CAPSTAN_TRY(const bool fits, admits(*names, Json(property.name), pointer));
    if (!fits) property.schema = false;
  }
  return {};
}

// `open`: keys that the schema does not name may be written although it does not say so.
Result<std::vector<SchemaCompiler::Extra>> SchemaCompiler::extras(const Json& schema,
                                                                  const std::vector<Property>& named,
                                                                  bool open, const std::string& pointer) {
  std::vector<Extra> out;
  const Json* additional = schema.find("additionalProperties");
  if (additional == nullptr) additional = schema.find("unevaluatedProperties");
  const Json* patterns = schema.find("patternProperties");
  const Json* names = schema.find("propertyNames");
  const Json others = additional != nullptr ? *additional : Json(open && patterns == nullptr);
  if (others == Json(false) && patterns == nullptr) return out;
  const bool anything =
      named.empty() && !schema.contains("properties") && patterns == nullptr && names == nullptr;
  if (anything)
    return std::vector<Extra>{{std::nullopt, rule_for(others, pointer_to(pointer, "additionalProperties"))}};
  const auto place = [&](const Error& error) { return schema_error(pointer, "properties", error.message); };
  Dfa free = Dfa::every_text();
  if (names != nullptr) {
    CAPSTAN_TRY(free, texts_under(*names, pointer_to(pointer, "propertyNames")));
  }
  std::vector<std::string> known;
  if (const Json* list = schema.find("properties"))
    for (const auto& [name, property] : list->members()) known.push_back(name);
  for (const Property& property : named) known.push_back(property.name);
  auto known_names = Dfa::of_texts(known);
  if (!known_names) return place(known_names.error());
  auto unnamed = free.without(*known_names);
  if (!unnamed) return place(unnamed.error());
  CAPSTAN_CHECK(spend(*unnamed, pointer));
  if (patterns != nullptr) {
    CAPSTAN_CHECK(pattern_extras(schema, *unnamed, others, pointer, out));
  } else if (!unnamed->is_empty()) {
    out.push_back({*std::move(unnamed), rule_for(others, pointer_to(pointer, "additionalProperties"))});
  }
  return out;
}

// Keys of one pattern only; keys of several are never written.
Result<void> SchemaCompiler::pattern_extras(const Json& schema, const Dfa& unnamed, const Json& others,
                                            const std::string& pointer, std::vector<Extra>& out) {
  const Json& patterns = *schema.find("patternProperties");
  const std::string at = pointer_to(pointer, "patternProperties");
  if (!patterns.is_object() || patterns.size() > kPatternsMax)
    return schema_error(pointer, "patternProperties",
                        fmt::format("it is an object of up to {} schemas", kPatternsMax));
  std::vector<const Dfa*> matches;
  for (const auto& [pattern, value] : patterns.members()) {
    auto dfa = merge_.values().pattern(pattern);
    if (!dfa) return schema_error(at, pattern, dfa.error().message);
    CAPSTAN_CHECK(spend(**dfa, pointer));
    matches.push_back(*dfa);
  }
  for (std::size_t i = 0; i <= matches.size(); ++i) {
    const bool rest = i == matches.size();
    const Json& value = rest ? others : patterns.members()[i].second;
    if (value == Json(false)) continue;
    auto keys = rest ? Result<Dfa>(unnamed) : unnamed.both(*matches[i]);
    for (std::size_t other = 0; other < matches.size() && keys; ++other)
      if (other != i) keys = keys->without(*matches[other]);
    if (!keys) return schema_error(pointer, "patternProperties", keys.error().message);
    if (keys->is_empty()) continue;
    out.push_back({*std::move(keys), rule_for(value, rest ? pointer_to(pointer, "additionalProperties")
                                                          : pointer_to(at, patterns.members()[i].first))});
  }
  return {};
}

Result<NodeId> SchemaCompiler::member(const Property& property, const std::string& pointer, NodeId from) {
  NodeId at = build_.literal(from, quoted(property.name) + ":");
  at = build_.call(at, json_.blank());
  return value(property.schema, pointer_to(pointer_to(pointer, "properties"), property.name), at);
}

// A rule for one further member; `lengths` restricts its key.
Result<RuleId> SchemaCompiler::members_of(const std::vector<Extra>& extras, const std::optional<Dfa>& lengths,
                                          const std::string& pointer) {
  const RuleId members = build_.new_rule();
  const NodeId begin = build_.rule_start(members), end = build_.new_node();
  build_.end_rule(members, end);
  for (const Extra& extra : extras) {
    NodeId key = begin;
    if (!extra.keys && !lengths) {
      key = build_.call(begin, json_.string());
    } else {
      auto keys = !lengths     ? Result<Dfa>(*extra.keys)
                  : extra.keys ? extra.keys->both(*lengths)
                               : Dfa::every_text().both(*lengths);
      if (!keys) return schema_error(pointer, "minProperties", keys.error().message);
      CAPSTAN_CHECK(spend(*keys, pointer));
      if (keys->is_empty()) continue;
      key = build_.symbols(keys->emit_json_string(build_, build_.symbols(begin, '"', '"')), '"', '"');
    }
    build_.call(build_.call(build_.symbols(key, ':', ':'), json_.blank()), extra.value, end);
  }
  return members;
}

// counted[c]: c properties are written (the last: so many or more, if max is kNoBound). `end` closes the
// object.
//
// A key may come twice. Where that would leave too few properties, keys are told apart by their lengths: the
// key written as number c has c characters more than a multiple of the number needed.
Result<void> SchemaCompiler::extra_members(const std::vector<Extra>& extras,
                                           const std::vector<NodeId>& counted, NodeId end, std::uint32_t min,
                                           std::uint32_t max, const std::string& pointer) {
  const std::uint32_t last = static_cast<std::uint32_t>(counted.size() - 1);
  const auto close = [&](NodeId at, std::uint32_t written) {
    if (written >= std::min(min, last)) build_.empty(at, end);
  };
  for (std::uint32_t c = 0; c <= last; ++c) close(counted[c], c);
  if (extras.empty()) return {};
  constexpr std::uint32_t kCountedKeysMax = 64;
  if (min > kCountedKeysMax)
    return schema_error(pointer, "minProperties",
                        fmt::format("above {} it is not supported where keys are free", kCountedKeysMax));
  const std::uint32_t needed = min > 1 ? min : 0;
  CAPSTAN_TRY(const RuleId free, members_of(extras, std::nullopt, pointer));
  std::vector<NodeId> more(counted.size());
  for (std::uint32_t c = 0; c <= last; ++c) more[c] = build_.new_node();
  for (std::uint32_t c = 0; c <= last && !build_.overflowed(); ++c) {
    if (max != kNoBound && c == last) break;
    RuleId members = free;
    if (c < needed) {
      CAPSTAN_TRY(members, members_of(extras, Dfa::length_class(needed, c), pointer));
    }
    for (const NodeId from : {counted[c], more[c]}) {
      NodeId at = from;
      if (c > 0) at = build_.call(build_.symbols(from, ',', ','), json_.blank());
      build_.call(at, members, more[std::min(c + 1, last)]);
    }
  }
  for (std::uint32_t c = 0; c <= last; ++c) close(more[c], c);
  return {};
}

Result<NodeId> SchemaCompiler::object(const Json& schema, const std::string& pointer, NodeId from) {
  CAPSTAN_TRY(const auto named, properties(schema, pointer));
  CAPSTAN_TRY(const auto min, count(schema, "minProperties", 0, pointer));
  CAPSTAN_TRY(auto max, count(schema, "maxProperties", kNoBound, pointer));
  const auto name_count = static_cast<std::uint32_t>(named.size());
  CAPSTAN_TRY(const auto further, extras(schema, named, name_count == 0 || min > name_count, pointer));
  if (min > max || (further.empty() && min > name_count)) return build_.new_node();
  if (further.empty() && max >= name_count) max = kNoBound;
  const std::uint32_t last = max != kNoBound ? max : std::max<std::uint32_t>(min, 1);
  if (std::size_t{last} * (name_count + 1) > kCountedNodesMax)
    return schema_error(pointer, "maxProperties", "so many properties are not supported");

  std::vector<NodeId> counted(last + 1);
  NodeId open = build_.call(build_.symbols(from, '{', '{'), json_.blank());
  for (NodeId& node : counted) node = build_.new_node();
  build_.empty(open, counted[0]);
  for (const Property& property : named) {
    if (build_.overflowed()) break;
    CAPSTAN_TRY(counted, property_step(property, counted, max, pointer));
  }
  const NodeId end = build_.new_node();
  CAPSTAN_CHECK(extra_members(further, counted, end, min, max, pointer));
  // `{` has its blanks already; behind a member there may be some, too.
  return build_.symbols(build_.call(end, json_.blank()), '}', '}');
}

// The tracks behind a property that is written or left out.
Result<std::vector<NodeId>> SchemaCompiler::property_step(const Property& property,
                                                          const std::vector<NodeId>& counted,
                                                          std::uint32_t max, const std::string& pointer) {
  const auto last = static_cast<std::uint32_t>(counted.size() - 1);
  std::vector<NodeId> next(counted.size());
  for (NodeId& node : next) node = build_.new_node();
  const NodeId begin = build_.new_node();
  CAPSTAN_TRY(const NodeId written, member(property, pointer, begin));
  RuleId rule = 0;
  if (last > 1) {  // written on several tracks: a rule
    rule = build_.new_rule();
    build_.empty(build_.rule_start(rule), begin);
    build_.end_rule(rule, written);
  } else if (last == 1) {
    build_.empty(written, next[1]);
  }
  for (std::uint32_t c = 0; c <= last; ++c) {
    if (!property.required) build_.empty(counted[c], next[c]);
    if (max != kNoBound && c == last) break;
    NodeId at = counted[c];
    if (c > 0) at = build_.call(build_.symbols(at, ',', ','), json_.blank());
    if (last > 1)
      build_.call(at, rule, next[std::min(c + 1, last)]);
    else
      build_.empty(at, begin);
  }
  return next;
}

}  // namespace capstan::engine

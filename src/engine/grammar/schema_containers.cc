// Arrays and objects.
//
// An object is a row of nodes, one before each property, in two tracks: nothing written yet, and something
// written (a comma is due). With minProperties or maxProperties there is a track for every number of
// properties.
#include <algorithm>

#include "engine/grammar/regex.h"
#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::uint32_t kItemsMax = 4'096;        // larger maxItems are read as this
constexpr std::size_t kCountedNodesMax = 20'000;  // properties × tracks
constexpr std::size_t kPatternsMax = 16;

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

}  // namespace

Result<NodeId> SchemaCompiler::array(const Json& schema, const std::string& pointer, NodeId from) {
  CAPSTAN_TRY(const auto min, count(schema, "minItems", 0, pointer));
  CAPSTAN_TRY(auto max, count(schema, "maxItems", kNoBound, pointer));
  if (min > kItemsMax)
    return schema_error(pointer, "minItems", fmt::format("above {} it is not supported", kItemsMax));
  if (max != kNoBound) max = std::min(max, kItemsMax);
  if (min > max) return build_.new_node();
  std::vector<RuleId> first;
  if (const Json* prefix = schema.find("prefixItems")) {
    if (!prefix->is_array()) return schema_error(pointer, "prefixItems", "it is a list of schemas");
    for (std::size_t i = 0; i < prefix->size(); ++i)
      first.push_back(rule_for(prefix->items()[i], fmt::format("{}/prefixItems/{}", pointer, i)));
  }
  const Json* items = schema.find("items");
  if (items != nullptr && items->is_array())
    return schema_error(pointer, "items", "a list of schemas is written as prefixItems");
  const Json each = items != nullptr ? *items : Json(true);
  const RuleId rest = rule_for(each, pointer_to(pointer, "items"));
  const std::uint32_t fixed = static_cast<std::uint32_t>(first.size());
  const bool endless = max == kNoBound;
  // From this many items on, all is alike.
  const std::uint32_t tracks = endless ? std::max(min, fixed) : max;

  NodeId open = build_.call(build_.symbols(from, '[', '['), json_.blank());
  const NodeId close = build_.new_node(), behind = build_.new_node();
  build_.edge(close, ']', ']', behind);
  NodeId before = build_.new_node();  // where the next item begins
  build_.empty(open, before);
  if (min == 0) build_.empty(open, close);
  for (std::uint32_t i = 0; i < tracks && !build_.overflowed(); ++i) {
    const NodeId at = build_.call(before, i < fixed ? first[i] : rest);
    if (i + 1 >= min) build_.call(at, json_.blank(), close);
    if (i + 1 == tracks && !endless) break;
    before = build_.call(build_.symbols(at, ',', ','), json_.blank());
  }
  if (endless && each != Json(false)) {
    const NodeId at = build_.call(before, rest);
    build_.call(at, json_.blank(), close);
    build_.call(build_.symbols(at, ',', ','), json_.blank(), before);
  }
  return behind;
}

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
  // Required and not named: what patternProperties and additionalProperties say of them.
  for (const std::string& name : missing) {
    const Json* additional = schema.find("additionalProperties");
    if (schema.contains("patternProperties"))
      return schema_error(
          pointer, "required",
          fmt::format("'{}' is not among the properties; beside patternProperties that is not supported",
                      name));
    named.push_back({name, additional != nullptr ? *additional : Json(true), true});
  }
  // Properties that are forbidden count for nothing, unless they are required.
  std::erase_if(
      named, [](const Property& property) { return property.schema == Json(false) && !property.required; });
  return named;
}

Result<std::vector<SchemaCompiler::Extra>> SchemaCompiler::extras(const Json& schema,
                                                                  const std::vector<Property>& named,
                                                                  const std::string& pointer) {
  std::vector<Extra> out;
  const Json* additional = schema.find("additionalProperties");
  const Json* patterns = schema.find("patternProperties");
  const Json* names = schema.find("propertyNames");
  Json others =
      additional != nullptr ? *additional : Json(!schema.contains("properties") && patterns == nullptr);
  const bool closed = others == Json(false);
  if (closed && patterns == nullptr) return out;
  const auto add = [&](const Dfa& keys, const Json& value, const std::string& at) {
    if (keys.is_empty()) return;
    const NodeId begin = build_.new_node();
    const NodeId end =
        build_.symbols(keys.emit_json_string(build_, build_.symbols(begin, '"', '"')), '"', '"');
    out.push_back({begin, end, rule_for(value, at)});
  };
  const std::string at = pointer_to(pointer, "additionalProperties");
  if (named.empty() && !schema.contains("properties") && patterns == nullptr && names == nullptr) {
    const NodeId begin = build_.new_node();
    out.push_back({begin, build_.call(begin, json_.string()), rule_for(others, at)});
    return out;
  }
  const auto place = [&](std::string_view keyword, const Error& error) {
    return schema_error(pointer, keyword, error.message);
  };
  Dfa free = Dfa::every_text();
  if (names != nullptr) {
    CAPSTAN_TRY(const Json flat, merge_.flat(*names));
    auto keys = text_of(flat, pointer_to(pointer, "propertyNames"));
    if (!keys) return std::unexpected(keys.error());
    free = *std::move(keys);
  }
  std::vector<std::string> known;
  if (const Json* list = schema.find("properties"))
    for (const auto& [name, property] : list->members()) known.push_back(name);
  for (const Property& property : named) known.push_back(property.name);
  CAPSTAN_TRY(const Dfa known_names, Dfa::of_texts(known));
  auto unnamed = free.without(known_names);
  if (!unnamed) return place("properties", unnamed.error());
  CAPSTAN_CHECK(spend(*unnamed, pointer));
  if (patterns == nullptr) {
    add(*unnamed, others, at);
    return out;
  }
  if (!patterns->is_object() || patterns->size() > kPatternsMax)
    return schema_error(pointer, "patternProperties",
                        fmt::format("it is an object of up to {} schemas", kPatternsMax));
  std::vector<Dfa> matches;
  for (const auto& [pattern, value] : patterns->members()) {
    auto expression = parse_regex(pattern);
    if (!expression)
      return schema_error(pointer_to(pointer, "patternProperties"), pattern, expression.error().message);
    auto dfa = Dfa::of(*expression);
    if (!dfa) return schema_error(pointer_to(pointer, "patternProperties"), pattern, dfa.error().message);
    for (const Property& property : named) {
      if (dfa->matches(property.name))
        return schema_error(
            pointer_to(pointer, "patternProperties"), pattern,
            fmt::format("it matches the property '{}' as well, which is not supported", property.name));
    }
    CAPSTAN_CHECK(spend(*dfa, pointer));
    matches.push_back(*std::move(dfa));
  }
  // Keys of one pattern only; keys of several are never written.
  for (std::size_t i = 0; i <= matches.size(); ++i) {
    if (i == matches.size() && closed) break;
    auto keys = i < matches.size() ? unnamed->both(matches[i]) : Result<Dfa>(*unnamed);
    for (std::size_t other = 0; other < matches.size() && keys; ++other)
      if (other != i) keys = keys->without(matches[other]);
    if (!keys) return place("patternProperties", keys.error());
    if (i == matches.size())
      add(*keys, others, at);
    else
      add(*keys, patterns->members()[i].second,
          pointer_to(pointer_to(pointer, "patternProperties"), patterns->members()[i].first));
  }
  return out;
}

Result<NodeId> SchemaCompiler::member(const Property& property, const std::string& pointer, NodeId from) {
  NodeId at = build_.literal(from, quoted(property.name) + ":");
  at = build_.call(at, json_.blank());
  return value(property.schema, pointer_to(pointer_to(pointer, "properties"), property.name), at);
}

// counted[c]: c properties are written (the last: so many or more, if max is kNoBound). `end` closes the
// object.
NodeId SchemaCompiler::extra_members(const std::vector<Extra>& extras, std::vector<NodeId> counted,
                                     NodeId end, std::uint32_t min, std::uint32_t max) {
  const std::uint32_t last = static_cast<std::uint32_t>(counted.size() - 1);
  const auto close = [&](NodeId at, std::uint32_t written) {
    if (written >= std::min(min, last)) build_.empty(at, end);
  };
  for (std::uint32_t c = 0; c <= last; ++c) close(counted[c], c);
  if (extras.empty()) return end;
  // A key may come twice, so further keys cannot be counted on beyond the first.
  const std::uint32_t needed = min > 1 ? min : 0;
  const RuleId members = build_.new_rule();
  const NodeId members_end = build_.new_node();
  build_.end_rule(members, members_end);
  for (const Extra& extra : extras) {
    build_.empty(build_.rule_start(members), extra.key_begin);
    build_.call(build_.call(build_.symbols(extra.key_end, ':', ':'), json_.blank()), extra.value,
                members_end);
  }
  std::vector<NodeId> more(counted.size());
  for (std::uint32_t c = 0; c <= last; ++c) more[c] = build_.new_node();
  for (std::uint32_t c = 0; c <= last; ++c) {
    if (c < needed && c < last) continue;
    if (max != kNoBound && c == last) break;
    const std::uint32_t next = std::min(c + 1, last);
    for (const NodeId from : {counted[c], more[c]}) {
      NodeId at = from;
      if (c > 0) at = build_.call(build_.symbols(from, ',', ','), json_.blank());
      build_.call(at, members, more[next]);
    }
  }
  for (std::uint32_t c = 0; c <= last; ++c) close(more[c], c);
  return end;
}

Result<NodeId> SchemaCompiler::object(const Json& schema, const std::string& pointer, NodeId from) {
  CAPSTAN_TRY(const auto named, properties(schema, pointer));
  CAPSTAN_TRY(const auto min, count(schema, "minProperties", 0, pointer));
  CAPSTAN_TRY(auto max, count(schema, "maxProperties", kNoBound, pointer));
  CAPSTAN_TRY(const auto further, extras(schema, named, pointer));
  const auto name_count = static_cast<std::uint32_t>(named.size());
  if (min > max) return build_.new_node();
  if (min > name_count + (further.empty() ? 0 : 1))
    return schema_error(pointer, "minProperties",
                        "it asks for more properties than the schema names, which is not supported");
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
    counted = std::move(next);
  }
  const NodeId end = build_.new_node();
  extra_members(further, counted, end, min, max);
  // `{` has its blanks already; behind a member there may be some, too.
  return build_.symbols(build_.call(end, json_.blank()), '}', '}');
}

}  // namespace capstan::engine

// Arrays: a grid of nodes, by how many items are written and how many of them count for `contains`.
//
// uniqueItems needs to know what was written. Where the items have few values, the grid's nodes are sets of
// them; where they have more, items come in the order of the list, which is narrower. Other items are
// compared while they are written (unique_items.h).
#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/grammar/schema_compiler.h"

namespace capstan::engine {
namespace {

constexpr std::uint32_t kItemsMax = 4'096;  // larger maxItems are read as this
constexpr std::size_t kGridMax = 20'000;    // nodes
constexpr std::size_t kSetValuesMax = 8;    // more values come in order
constexpr std::size_t kUniqueValuesMax = 4'096;
constexpr std::int64_t kIntegersMax = 256;  // of a range, or texts of a pattern, that are a list of values

}  // namespace

Result<SchemaCompiler::ItemRules> SchemaCompiler::item_rules(const Json& schema, const Json& item,
                                                             bool limited, const std::string& pointer) {
  ItemRules rules;
  const Json* contained = schema.find("contains");
  const auto rule_of = [&](const Json& part) -> Result<std::optional<RuleId>> {
    auto joined = merge_.both(item, part);
    if (!joined) return schema_error(pointer, "contains", joined.error().message);
    if (*joined == Json(false)) return std::nullopt;
    return rule_for(*joined, pointer_to(pointer, "items"));
  };
  if (contained == nullptr || !limited) {
    if (item != Json(false)) rules.other = rule_for(item, pointer_to(pointer, "items"));
  } else {
    CAPSTAN_TRY(rules.other, rule_of(Json::object({{"not", *contained}})));
  }
  if (contained != nullptr) {
    CAPSTAN_TRY(rules.contained, rule_of(*contained));
  }
  return rules;
}

Result<NodeId> SchemaCompiler::array(const Json& schema, const std::string& pointer, NodeId from) {
  CAPSTAN_TRY(const auto min, count(schema, "minItems", 0, pointer));
  CAPSTAN_TRY(auto max, count(schema, "maxItems", kNoBound, pointer));
  const bool contains = schema.contains("contains");
  CAPSTAN_TRY(const auto hits_min, count(schema, "minContains", contains ? 1 : 0, pointer));
  CAPSTAN_TRY(const auto hits_max, count(schema, "maxContains", kNoBound, pointer));
  if (min > kItemsMax)
    return schema_error(pointer, "minItems", fmt::format("above {} it is not supported", kItemsMax));
  if (max != kNoBound) max = std::min(max, kItemsMax);
  if (min > max || (contains && hits_min > hits_max)) return build_.new_node();
  const bool unique = schema.get_bool("uniqueItems") == true && max > 1;
  if (unique) {
    CAPSTAN_TRY(const auto few, unique_items(schema, min, max, pointer, from));
    if (few) return *few;
  }
  const Json* prefix = schema.find("prefixItems");
  if (prefix != nullptr && !prefix->is_array())
    return schema_error(pointer, "prefixItems", "it is a list of schemas");
  const Json* items = schema.find("items");
  const auto fixed = static_cast<std::uint32_t>(prefix != nullptr ? prefix->size() : 0);
  const bool endless = max == kNoBound;
  const bool limited = contains && hits_max != kNoBound;
  // From so many items and hits on, all is alike.
  const std::uint32_t tracks = endless ? std::max(min, fixed) : max;
  const std::uint32_t hits = !contains ? 0 : limited ? hits_max : hits_min;
  if (std::size_t{tracks + 1} * (hits + 1) > kGridMax)
    return schema_error(pointer, contains ? "minContains" : "maxItems", "so many items are not supported");
  CAPSTAN_TRY(const ItemRules rest,
              item_rules(schema, items != nullptr ? *items : Json(true), limited, pointer));

  const NodeId open = build_.call(build_.symbols(from, '[', '['), json_.blank());
  const NodeId close = build_.new_node(), behind = build_.new_node();
  build_.edge(close, ']', ']', behind);
  if (min == 0 && (!contains || hits_min == 0)) build_.empty(open, close);
  std::vector<NodeId> before(hits + 1);  // where the next item begins
  for (NodeId& node : before) node = build_.new_node();
  build_.node(before[0]).unique_array = unique;
  build_.empty(open, before[0]);
  for (std::uint32_t i = 0; i < tracks + (endless ? 1 : 0) && !build_.overflowed(); ++i) {
    const bool loop = i == tracks, last = !endless && i + 1 == max;
    ItemRules rules = rest;
    if (i < fixed) {
      CAPSTAN_TRY(rules, item_rules(schema, prefix->items()[i], limited, pointer));
    }
    std::vector<NodeId> next(hits + 1), written(hits + 1);
    for (std::uint32_t c = 0; c <= hits; ++c) {
      next[c] = loop ? before[c] : build_.new_node();
      written[c] = build_.new_node();
      if (i + 1 >= min && (!contains || c >= hits_min)) build_.call(written[c], json_.blank(), close);
      if (!last) build_.call(build_.symbols(written[c], ',', ','), json_.blank(), next[c]);
    }
    for (std::uint32_t c = 0; c <= hits; ++c) {
      if (rules.other) build_.call(before[c], *rules.other, written[c]);
      if (rules.contained && (c < hits || !limited))
        build_.call(before[c], *rules.contained, written[std::min(c + 1, hits)]);
    }
    before = std::move(next);
  }
  return behind;
}

Result<std::optional<std::vector<Json>>> SchemaCompiler::all_values(const Json& schema,
                                                                    const std::string& pointer) {
  auto flat = merge_.flat(schema);
  if (!flat) return schema_error(pointer, "items", flat.error().message);
  std::vector<Json> out;
  const auto add = [&](const Json& value) -> Result<void> {
    CAPSTAN_TRY(const bool fits, admits(*flat, value, pointer));
    if (fits && std::ranges::none_of(out, [&](const Json& other) { return same_value(other, value); }))
      out.push_back(value);
    return {};
  };
  if (!flat->is_object()) return std::nullopt;
  if (const Json* list = flat->find("enum"); list != nullptr && list->is_array()) {
    if (list->size() > kUniqueValuesMax) return std::nullopt;
    for (const Json& value : list->items()) CAPSTAN_CHECK(add(value));
    return out;
  }
  if (const Json* list = flat->find("anyOf"); list != nullptr && list->is_array()) {
    for (const Json& branch : list->items()) {
      CAPSTAN_TRY(const auto some, all_values(branch, pointer));
      if (!some) return std::nullopt;
      for (const Json& value : *some) CAPSTAN_CHECK(add(value));
    }
    return out;
  }
  const Json* type = flat->find("type");
  if (type == nullptr) return std::nullopt;
  for (const Json& one : type->is_array() ? type->items() : Json::Array{*type}) {
    if (one == Json("null")) {
      CAPSTAN_CHECK(add(Json()));
    } else if (one == Json("boolean")) {
      CAPSTAN_CHECK(add(false));
      CAPSTAN_CHECK(add(true));
    } else if (one == Json("string") && flat->contains(kPatterns)) {
      CAPSTAN_TRY(const Dfa texts, text_of(*flat, pointer));
      const auto few = texts.all_texts(static_cast<std::size_t>(kIntegersMax));
      if (!few) return std::nullopt;
      for (const std::string& text : *few) CAPSTAN_CHECK(add(text));
    } else if (one == Json("integer") && flat->get_double("minimum") && flat->get_double("maximum")) {
      const double low = *flat->get_double("minimum"), high = *flat->get_double("maximum");
      if (!(std::abs(low) < 1e15) || !(high - low < static_cast<double>(kIntegersMax))) return std::nullopt;
      for (auto value = static_cast<std::int64_t>(std::ceil(low)); static_cast<double>(value) <= high;
           ++value)
        CAPSTAN_CHECK(add(value));
    } else {
      return std::nullopt;
    }
  }
  return out;
}

// Nothing if there are too many of them.
Result<std::optional<NodeId>> SchemaCompiler::unique_items(const Json& schema, std::uint32_t min,
                                                           std::uint32_t max, const std::string& pointer,
                                                           NodeId from) {
  const Json* items = schema.find("items");
  std::optional<std::vector<Json>> values;
  if (items != nullptr) {
    CAPSTAN_TRY(values, all_values(*items, pointer));
  }
  if (!values || schema.contains("prefixItems") || schema.contains("contains")) return std::nullopt;
  const auto all = static_cast<std::uint32_t>(values->size());
  max = std::min(max, all);
  if (min > max) return build_.new_node();
  std::vector<RuleId> rules;
  for (const Json& value : *values) {
    rules.push_back(build_.new_rule());
    build_.end_rule(rules.back(), build_.literal(build_.rule_start(rules.back()), value.dump()));
  }
  const NodeId open = build_.call(build_.symbols(from, '[', '['), json_.blank());
  const NodeId close = build_.new_node(), behind = build_.new_node();
  build_.edge(close, ']', ']', behind);
  if (min == 0) build_.empty(open, close);
  // A node before an item, and one behind it, for what is written so far.
  const auto written = [&](std::uint32_t written_items, NodeId next) {
    const NodeId node = build_.new_node();
    if (written_items >= min) build_.call(node, json_.blank(), close);
    if (written_items < max) build_.call(build_.symbols(node, ',', ','), json_.blank(), next);
    return node;
  };
  if (all <= kSetValuesMax) {
    std::vector<NodeId> before(std::size_t{1} << all), after(before.size());
    for (NodeId& node : before) node = build_.new_node();
    for (std::size_t set = 0; set < before.size(); ++set)
      after[set] = written(static_cast<std::uint32_t>(std::popcount(set)), before[set]);
    build_.empty(open, before[0]);
    for (std::size_t set = 0; set < before.size(); ++set)
      for (std::uint32_t i = 0; i < all; ++i)
        if ((set >> i & 1) == 0) build_.call(before[set], rules[i], after[set | std::size_t{1} << i]);
    return behind;
  }
  // From so many items on, all is alike.
  const std::uint32_t tracks = max < all ? max : std::max<std::uint32_t>(min, 1);
  if (std::size_t{all} * (tracks + 1) > kGridMax * 4) return std::nullopt;
  std::vector<NodeId> before(tracks + 1);
  for (NodeId& node : before) node = build_.new_node();
  build_.empty(open, before[0]);
  for (std::uint32_t i = 0; i < all && !build_.overflowed(); ++i) {  // item i, or a later one
    std::vector<NodeId> next(tracks + 1);
    for (NodeId& node : next) node = build_.new_node();
    for (std::uint32_t c = 0; c <= tracks; ++c) {
      build_.empty(before[c], next[c]);
      const std::uint32_t more = std::min(c + 1, tracks);
      if (c < max) build_.call(before[c], rules[i], written(more, next[more]));
    }
    before = std::move(next);
  }
  return behind;
}

}  // namespace capstan::engine

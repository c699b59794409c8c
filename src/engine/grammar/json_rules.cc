// Strings of bounded length share one chain of nodes: a string of at most n characters enters it n before its
// end.
#include "engine/grammar/json_rules.h"

#include "base/assert.h"
#include "engine/grammar/dfa.h"
#include "engine/grammar/regex.h"

namespace capstan::engine {

RuleId JsonRules::blank() {
  if (blank_) return *blank_;
  blank_ = build_.new_rule();
  const NodeId start = build_.rule_start(*blank_);
  build_.end_rule(*blank_, start);
  build_.end_rule(*blank_, build_.symbols(start, ' ', ' '));
  NodeId at = build_.symbols(start, '\n', '\n');
  for (int i = 0; i < kIndentMax; ++i) {
    build_.end_rule(*blank_, at);
    at = build_.symbols(at, ' ', ' ');
  }
  build_.end_rule(*blank_, at);
  return *blank_;
}

RuleId JsonRules::character() {
  if (character_) return *character_;
  character_ = build_.new_rule();
  const NodeId start = build_.rule_start(*character_);
  const NodeId end = build_.new_node();
  build_.end_rule(*character_, end);
  build_.code_points(start, 0x20, '"' - 1, end);
  build_.code_points(start, '"' + 1, '\\' - 1, end);
  build_.code_points(start, '\\' + 1, 0x10FFFF, end);
  const NodeId escape = build_.symbols(start, '\\', '\\');
  for (const char c : std::string_view("\"\\/bfnrt"))
    build_.edge(escape, static_cast<Symbol>(c), static_cast<Symbol>(c), end);
  // \uXXXX: no half of a surrogate pair alone.
  const auto hex = [&](NodeId from, std::string_view digits, NodeId to) {
    for (const char c : digits) build_.edge(from, static_cast<Symbol>(c), static_cast<Symbol>(c), to);
  };
  constexpr std::string_view kAll = "0123456789abcdefABCDEF";
  const NodeId u = build_.symbols(escape, 'u', 'u');
  const NodeId last3 = build_.new_node(), last2 = build_.new_node(), last1 = build_.new_node();
  hex(u, "0123456789abcefABCEF", last3);
  hex(last3, kAll, last2);
  hex(last2, kAll, last1);
  hex(last1, kAll, end);
  const NodeId d = build_.new_node();
  hex(u, "dD", d);
  hex(d, "01234567", last2);
  NodeId high = build_.new_node();
  hex(d, "89abAB", high);
  for (int i = 0; i < 2; ++i) {
    const NodeId next = build_.new_node();
    hex(high, kAll, next);
    high = next;
  }
  NodeId low = build_.literal(high, "\\u");
  const NodeId low_d = build_.new_node(), low_third = build_.new_node();
  hex(low, "dD", low_d);
  hex(low_d, "cdefCDEF", low_third);
  hex(low_third, kAll, last1);
  return *character_;
}

// The node from which at most `more` characters and the quote follow.
NodeId JsonRules::rest_of_string(std::uint32_t more, NodeId end) {
  if (more == kNoBound) {
    const NodeId loop = build_.new_node();
    build_.node(loop).plain_run = kNoBound;
    build_.call(loop, character(), loop);
    build_.edge(loop, '"', '"', end);
    return loop;
  }
  if (chain_.empty()) {
    chain_end_ = build_.new_node();
    build_.node(chain_end_).final = true;
    chain_.push_back(build_.new_node());
    build_.edge(chain_.back(), '"', '"', chain_end_);
  }
  while (chain_.size() <= more && !build_.overflowed()) {
    const NodeId node = build_.new_node();
    build_.node(node).plain_run = static_cast<std::uint32_t>(chain_.size());
    build_.call(node, character(), chain_.back());
    build_.edge(node, '"', '"', chain_end_);
    chain_.push_back(node);
  }
  return build_.overflowed() ? chain_.back() : chain_[more];
}

RuleId JsonRules::string(std::uint32_t min, std::uint32_t max) {
  if (const auto known = strings_.find({min, max}); known != strings_.end()) return known->second;
  CAPSTAN_ASSERT(min <= max && min <= kCharactersMax && (max == kNoBound || max <= kCharactersMax));
  const RuleId rule = build_.new_rule();
  strings_.emplace(std::pair{min, max}, rule);
  NodeId at = build_.symbols(build_.rule_start(rule), '"', '"');
  for (std::uint32_t i = 0; i < min && !build_.overflowed(); ++i) {
    build_.node(at).plain_run = max == kNoBound ? kNoBound : max - i;
    at = build_.call(at, character());
  }
  NodeId end = chain_end_;
  if (max == kNoBound) {
    end = build_.new_node();
    build_.end_rule(rule, end);
  }
  build_.empty(at, rest_of_string(max == kNoBound ? kNoBound : max - min, end));
  return rule;
}

RuleId JsonRules::of_regex(std::optional<RuleId>& kept, std::string_view pattern) {
  if (kept) return *kept;
  kept = build_.new_rule();
  const auto dfa = parse_pattern(pattern);
  build_.end_rule(*kept, dfa->emit_raw(build_, build_.rule_start(*kept)));
  return *kept;
}

RuleId JsonRules::number() {
  return of_regex(number_, R"(^-?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][+-]?\d{1,2})?$)");
}

RuleId JsonRules::integer() { return of_regex(integer_, R"(^(0|-?[1-9]\d{0,14})$)"); }

RuleId JsonRules::any_object() {
  if (any_object_) return *any_object_;
  any_object_ = build_.new_rule();
  const RuleId value = any_value();
  NodeId open = build_.symbols(build_.rule_start(*any_object_), '{', '{');
  open = build_.call(open, blank());
  const NodeId member = build_.new_node();
  build_.empty(open, member);
  NodeId at = build_.call(member, string());
  at = build_.call(build_.symbols(at, ':', ':'), blank());
  at = build_.call(at, value);
  build_.call(build_.symbols(at, ',', ','), blank(), member);
  const NodeId end = build_.new_node();
  build_.edge(open, '}', '}', end);
  build_.edge(build_.call(at, blank()), '}', '}', end);
  build_.end_rule(*any_object_, end);
  return *any_object_;
}

RuleId JsonRules::any_value() {
  if (any_value_) return *any_value_;
  any_value_ = build_.new_rule();
  const NodeId start = build_.rule_start(*any_value_);
  const NodeId end = build_.new_node();
  build_.end_rule(*any_value_, end);
  for (const std::string_view word : {"null", "true", "false"})
    build_.empty(build_.literal(start, word), end);
  build_.call(start, number(), end);
  build_.call(start, string(), end);
  build_.call(start, any_object(), end);
  const NodeId open = build_.call(build_.symbols(start, '[', '['), blank());
  const NodeId item = build_.new_node();
  build_.empty(open, item);
  const NodeId at = build_.call(item, *any_value_);
  build_.call(build_.symbols(at, ',', ','), blank(), item);
  build_.edge(open, ']', ']', end);
  build_.edge(build_.call(at, blank()), ']', ']', end);
  return *any_value_;
}

}  // namespace capstan::engine

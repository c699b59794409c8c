// Grammar: what an answer may be, as rules over bytes and format marks; GrammarBuilder makes one.
//
//   GrammarBuilder build;
//   const RuleId digits = build.new_rule();                    // a rule is a start node and a final node
//   NodeId at = build.rule_start(digits);
//   at = build.symbols(at, '0', '9');                          // every step goes on from a node to a new one
//   build.end_rule(digits, at);
//   CAPSTAN_TRY(auto grammar, std::move(build).finish(digits));
//
// A rule is a nondeterministic automaton whose edges are ranges of symbols, nothing (empty), or calls of
// rules, so recursion is a stack of return nodes (automaton.h runs it). Symbols 0..255 are bytes; 256 and
// above stand for special tokens, whose meaning is the caller's. finish() computes for every node the fewest
// symbols that end its rule and drops edges that lead nowhere: from every state that can be reached an end
// can be reached. Failure: kInvalid if nothing matches the grammar, if a rule can call itself before any
// symbol (left recursion), or beyond kNodesMax nodes. Threads: a Grammar is immutable. Cost: O(edges log
// edges) to finish.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::engine {

using NodeId = std::uint32_t;
using RuleId = std::uint32_t;
using Symbol = std::uint16_t;

inline constexpr Symbol kSymbols = 264;  // 256 bytes and 8 marks
inline constexpr Symbol kFirstMark = 256;
inline constexpr std::size_t kNodesMax = 200'000;
inline constexpr std::uint32_t kNoEnd = UINT32_MAX;      // a distance: the end cannot be reached
inline constexpr std::uint32_t kDistanceMax = 1u << 24;  // farther ends are none
inline constexpr std::uint32_t kNoBound = UINT32_MAX;    // a run of characters without an end

struct SymbolEdge {
  Symbol low, high;  // both included
  NodeId target;
};

struct RuleCall {
  RuleId rule;
  NodeId then;
};

struct GrammarNode {
  std::vector<SymbolEdge> edges;
  std::vector<NodeId> empties;
  std::vector<RuleCall> calls;
  std::uint32_t distance = kNoEnd;  // fewest symbols to the end of its rule
  // What a token mask may assume without walking the vocabulary: so many plain characters of a JSON string
  // are accepted here (token_trie.h says which are plain), and none of them brings the end farther away.
  std::uint32_t plain_run = 0;
  bool any_text = false;   // every byte is accepted and leads back here
  bool reasoning = false;  // free text before the answer: keeps room for it (token_matcher.h)
  bool unique_array = false;  // behind the `[` of an array whose items must differ (unique_items.h)
  bool final = false;      // the rule may end here
};

struct Grammar {
  std::vector<GrammarNode> nodes;
  std::vector<NodeId> rules;  // start nodes
  RuleId root = 0;
  bool unique_arrays = false;  // there are some

  std::uint32_t distance(RuleId rule) const { return nodes[rules[rule]].distance; }
};

class GrammarBuilder {
 public:
  RuleId new_rule();
  NodeId rule_start(RuleId rule) const { return grammar_.rules[rule]; }
  // The rule may end at `at`.
  void end_rule(RuleId rule, NodeId at);

  // Each gives the node behind.
  NodeId new_node();
  NodeId symbols(NodeId from, Symbol low, Symbol high);
  NodeId mark(NodeId from, Symbol symbol) { return symbols(from, symbol, symbol); }
  NodeId literal(NodeId from, std::string_view bytes);
  // One of the texts, as a tree, so that many begin alike in one state.
  void literals(NodeId from, std::vector<std::string> texts, NodeId to);
  NodeId call(NodeId from, RuleId rule);
  // One character whose code point is in [low, high], in UTF-8; surrogates are left out. Goes to `to`.
  void code_points(NodeId from, std::uint32_t low, std::uint32_t high, NodeId to);

  // Edges between nodes that exist.
  void edge(NodeId from, Symbol low, Symbol high, NodeId to);
  void empty(NodeId from, NodeId to);
  void call(NodeId from, RuleId rule, NodeId then);
  GrammarNode& node(NodeId id) { return grammar_.nodes[id]; }

  // Too many nodes: everything built since is worthless, and finish() fails. Long loops should look.
  bool overflowed() const { return overflowed_; }
  std::size_t size() const { return grammar_.nodes.size(); }
  const Grammar& draft() const { return grammar_; }

  Result<std::shared_ptr<const Grammar>> finish(RuleId root) &&;

 private:
  Grammar grammar_;
  bool overflowed_ = false;
};

}  // namespace capstan::engine

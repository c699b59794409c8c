// Distances are found as Knuth generalised Dijkstra's algorithm to grammars: nodes are settled in the order
// of their distance to the end of their rule; a call is worth the distance of its rule and of what follows,
// and is known when both are settled.
#include "engine/grammar/grammar.h"

#include <algorithm>
#include <queue>

#include "base/assert.h"

namespace capstan::engine {
namespace {

class Distances {
 public:
  explicit Distances(Grammar& grammar) : grammar_(grammar) {}

  // An end was beyond kDistanceMax.
  bool too_far() const { return too_far_; }

  void settle_all() {
    const std::size_t count = grammar_.nodes.size();
    before_.resize(count);
    rule_of_start_.assign(count, kNoEnd);
    callers_.resize(grammar_.rules.size());
    for (RuleId rule = 0; rule < grammar_.rules.size(); ++rule) rule_of_start_[grammar_.rules[rule]] = rule;
    for (NodeId id = 0; id < count; ++id) {
      const GrammarNode& node = grammar_.nodes[id];
      for (const SymbolEdge& edge : node.edges) before_[edge.target].push_back({id, 1, kNoEnd});
      for (const NodeId target : node.empties) before_[target].push_back({id, 0, kNoEnd});
      for (const RuleCall& call : node.calls) {
        before_[call.then].push_back({id, 0, call.rule});
        callers_[call.rule].push_back({id, call.then});
      }
      if (node.final) offer(id, 0);
    }
    while (!queue_.empty()) {
      const auto [distance, id] = queue_.top();
      queue_.pop();
      if (grammar_.nodes[id].distance != kNoEnd) continue;
      grammar_.nodes[id].distance = distance;
      settle(id, distance);
    }
  }

 private:
  struct Before {
    NodeId from;
    std::uint32_t symbols;
    RuleId rule;  // kNoEnd: no call
  };
  struct Caller {
    NodeId from;
    NodeId then;
  };
  using Entry = std::pair<std::uint32_t, NodeId>;

  void offer(NodeId id, std::uint64_t distance) {
    if (grammar_.nodes[id].distance != kNoEnd) return;
    if (distance <= kDistanceMax) {
      queue_.push({static_cast<std::uint32_t>(distance), id});
    } else {
      too_far_ = true;
    }
  }
  void settle(NodeId id, std::uint64_t distance) {
    for (const Before& before : before_[id]) {
      if (before.rule == kNoEnd) {
        offer(before.from, distance + before.symbols);
      } else if (const auto inner = grammar_.distance(before.rule); inner != kNoEnd) {
        offer(before.from, distance + inner);
      }
    }
    if (const RuleId rule = rule_of_start_[id]; rule != kNoEnd) {
      for (const Caller& caller : callers_[rule]) {
        if (const auto then = grammar_.nodes[caller.then].distance; then != kNoEnd)
          offer(caller.from, distance + then);
      }
    }
  }

  Grammar& grammar_;
  std::vector<std::vector<Before>> before_;
  std::vector<std::vector<Caller>> callers_;
  std::vector<RuleId> rule_of_start_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
  bool too_far_ = false;
};

void drop_dead_ends(Grammar& grammar) {
  const auto dead = [&](NodeId id) { return grammar.nodes[id].distance == kNoEnd; };
  for (GrammarNode& node : grammar.nodes) {
    std::erase_if(node.edges, [&](const SymbolEdge& edge) { return dead(edge.target); });
    std::erase_if(node.empties, dead);
    std::erase_if(node.calls, [&](const RuleCall& call) {
      return dead(call.then) || grammar.distance(call.rule) == kNoEnd;
    });
  }
}

// The rules that a rule can call before any symbol. An infinite chain of calls without a symbol repeats a
// rule.
class LeftRecursion {
 public:
  explicit LeftRecursion(const Grammar& grammar) : grammar_(grammar) {}

  bool any() {
    std::vector<std::vector<RuleId>> first(grammar_.rules.size());
    seen_.assign(grammar_.nodes.size(), kNoEnd);
    for (RuleId rule = 0; rule < grammar_.rules.size(); ++rule) first[rule] = first_calls(rule);
    // Kahn: a graph has a cycle if not every node can be taken away.
    std::vector<std::uint32_t> degree(first.size(), 0);
    for (const auto& calls : first)
      for (const RuleId rule : calls) ++degree[rule];
    std::vector<RuleId> free;
    for (RuleId rule = 0; rule < degree.size(); ++rule)
      if (degree[rule] == 0) free.push_back(rule);
    std::size_t taken = 0;
    while (!free.empty()) {
      const RuleId rule = free.back();
      free.pop_back();
      ++taken;
      for (const RuleId next : first[rule])
        if (--degree[next] == 0) free.push_back(next);
    }
    return taken < first.size();
  }

 private:
  std::vector<RuleId> first_calls(RuleId rule) {
    std::vector<RuleId> calls;
    std::vector<NodeId> open = {grammar_.rules[rule]};
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      if (std::exchange(seen_[id], rule) == rule) continue;
      const GrammarNode& node = grammar_.nodes[id];
      open.insert(open.end(), node.empties.begin(), node.empties.end());
      for (const RuleCall& call : node.calls) {
        calls.push_back(call.rule);
        if (grammar_.distance(call.rule) == 0) open.push_back(call.then);
      }
    }
    std::ranges::sort(calls);
    calls.erase(std::unique(calls.begin(), calls.end()), calls.end());
    return calls;
  }

  const Grammar& grammar_;
  std::vector<RuleId> seen_;
};

// [low, high] within one length of UTF-8, first bytes equal or not: split where the ranges of later bytes are
// not whole.
void utf8_edges(GrammarBuilder& build, NodeId from, std::uint32_t low, std::uint32_t high, int more,
                NodeId to) {
  static constexpr Symbol kLead[4] = {0x00, 0xC0, 0xE0, 0xF0};
  const auto lead = [&](std::uint32_t value, int behind, bool first) {
    const auto bits = static_cast<Symbol>(value >> (6 * behind));
    return static_cast<Symbol>(first ? kLead[behind] | bits : 0x80 | (bits & 0x3F));
  };
  struct Piece {
    NodeId from;
    std::uint32_t low, high;
    int more;
    bool first;
  };
  std::vector<Piece> open = {{from, low, high, more, true}};
  while (!open.empty()) {
    const Piece piece = open.back();
    open.pop_back();
    if (piece.more == 0) {
      build.edge(piece.from, lead(piece.low, 0, piece.first), lead(piece.high, 0, piece.first), to);
      continue;
    }
    const int shift = 6 * piece.more;
    const std::uint32_t rest = (1u << shift) - 1;
    const std::uint32_t a = piece.low >> shift, b = piece.high >> shift;
    const auto put = [&](std::uint32_t first, std::uint32_t last, std::uint32_t from_rest,
                         std::uint32_t to_rest) {
      const NodeId next = build.new_node();
      build.edge(piece.from, lead(first << shift, piece.more, piece.first),
                 lead(last << shift, piece.more, piece.first), next);
      open.push_back({next, from_rest, to_rest, piece.more - 1, false});
    };
    if (a == b) {
      put(a, a, piece.low & rest, piece.high & rest);
      continue;
    }
    std::uint32_t whole_first = a, whole_last = b;
    if ((piece.low & rest) != 0) put(a, a, piece.low & rest, rest), ++whole_first;
    if ((piece.high & rest) != rest) put(b, b, 0, piece.high & rest), --whole_last;
    if (whole_first <= whole_last) put(whole_first, whole_last, 0, rest);
  }
}

}  // namespace

RuleId GrammarBuilder::new_rule() {
  const NodeId start = new_node();
  grammar_.rules.push_back(start);
  return static_cast<RuleId>(grammar_.rules.size() - 1);
}

void GrammarBuilder::end_rule(RuleId rule, NodeId at) {
  CAPSTAN_ASSERT(rule < grammar_.rules.size());
  grammar_.nodes[at].final = true;
}

NodeId GrammarBuilder::new_node() {
  if (grammar_.nodes.size() >= kNodesMax) {
    overflowed_ = true;
    return static_cast<NodeId>(grammar_.nodes.size() - 1);
  }
  grammar_.nodes.emplace_back();
  return static_cast<NodeId>(grammar_.nodes.size() - 1);
}

NodeId GrammarBuilder::symbols(NodeId from, Symbol low, Symbol high) {
  const NodeId to = new_node();
  edge(from, low, high, to);
  return to;
}

NodeId GrammarBuilder::literal(NodeId from, std::string_view bytes) {
  for (const char byte : bytes) from = mark(from, static_cast<unsigned char>(byte));
  return from;
}

void GrammarBuilder::literals(NodeId from, std::vector<std::string> texts, NodeId to) {
  std::ranges::sort(texts);
  std::vector<NodeId> path = {from};  // of the text before
  std::string_view before;
  for (const std::string& text : texts) {
    const auto shared = static_cast<std::size_t>(std::ranges::mismatch(text, before).in1 - text.begin());
    path.resize(shared + 1);
    for (std::size_t i = shared; i < text.size(); ++i)
      path.push_back(mark(path.back(), static_cast<unsigned char>(text[i])));
    empty(path.back(), to);
    before = text;
  }
}

NodeId GrammarBuilder::call(NodeId from, RuleId rule) {
  const NodeId to = new_node();
  call(from, rule, to);
  return to;
}

void GrammarBuilder::code_points(NodeId from, std::uint32_t low, std::uint32_t high, NodeId to) {
  static constexpr struct {
    std::uint32_t low, high;
    int more;
  } kPieces[] = {
      {0, 0x7F, 0}, {0x80, 0x7FF, 1}, {0x800, 0xD7FF, 2}, {0xE000, 0xFFFF, 2}, {0x10000, 0x10FFFF, 3}};
  for (const auto& piece : kPieces) {
    const std::uint32_t a = std::max(low, piece.low), b = std::min(high, piece.high);
    if (a <= b) utf8_edges(*this, from, a, b, piece.more, to);
  }
}

void GrammarBuilder::edge(NodeId from, Symbol low, Symbol high, NodeId to) {
  CAPSTAN_ASSERT(low <= high && high < kSymbols);
  if (!overflowed_) grammar_.nodes[from].edges.push_back({low, high, to});
}

void GrammarBuilder::empty(NodeId from, NodeId to) {
  if (!overflowed_ && from != to) grammar_.nodes[from].empties.push_back(to);
}

void GrammarBuilder::call(NodeId from, RuleId rule, NodeId then) {
  CAPSTAN_ASSERT(rule < grammar_.rules.size());
  if (!overflowed_) grammar_.nodes[from].calls.push_back({rule, then});
}

Result<std::shared_ptr<const Grammar>> GrammarBuilder::finish(RuleId root) && {
  if (overflowed_) {
    return fail(Code::kInvalid,
                "it needs more than {} states; make it smaller (bounds of repetition, numbers of properties)",
                kNodesMax);
  }
  grammar_.root = root;
  Distances distances(grammar_);
  distances.settle_all();
  if (grammar_.distance(root) == kNoEnd && distances.too_far())
    return fail(Code::kInvalid, "its shortest text has more than {} bytes", kDistanceMax);
  if (grammar_.distance(root) == kNoEnd) return fail(Code::kInvalid, "nothing can satisfy it");
  drop_dead_ends(grammar_);
  if (LeftRecursion(grammar_).any()) {
    return fail(Code::kInvalid,
                "a rule refers to itself before anything is written (left recursion), so it never ends");
  }
  grammar_.unique_arrays = std::ranges::any_of(grammar_.nodes, &GrammarNode::unique_array);
  return std::make_shared<const Grammar>(std::move(grammar_));
}

}  // namespace capstan::engine

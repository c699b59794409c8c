// Subset construction over the builder's nodes, and products.
#include "engine/grammar/dfa.h"

#include <algorithm>
#include <map>

#include "base/assert.h"
#include "base/json.h"

namespace capstan::engine {
namespace {

std::unexpected<Error> too_large() {
  return fail(Code::kInvalid, "it needs more than {} states; make its repetitions shorter", kDfaStatesMax);
}

// The nodes that are reached without a symbol; sorted.
std::vector<NodeId> closure(const Grammar& nfa, std::vector<NodeId> open, std::vector<std::uint32_t>& seen,
                            std::uint32_t visit) {
  std::vector<NodeId> out;
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (std::exchange(seen[id], visit) == visit) continue;
    const GrammarNode& node = nfa.nodes[id];
    if (!node.edges.empty() || node.final) out.push_back(id);
    open.insert(open.end(), node.empties.begin(), node.empties.end());
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

Dfa::Index Dfa::add() {
  State state;
  state.next.fill(kNone);
  states_.push_back(state);
  return static_cast<Index>(states_.size() - 1);
}

Result<Dfa> Dfa::of(const Expression& expression) {
  GrammarBuilder build;
  const RuleId rule = build.new_rule();
  build.end_rule(rule, emit(build, build.rule_start(rule), expression, false));
  if (build.overflowed()) return too_large();
  const Grammar& nfa = build.draft();
  Dfa dfa;
  std::map<std::vector<NodeId>, Index> known;
  std::vector<const std::vector<NodeId>*> sets;
  std::vector<std::uint32_t> seen(nfa.nodes.size(), 0);
  std::uint32_t visit = 0;
  std::size_t work = 0;
  const auto intern = [&](std::vector<NodeId> seeds) {
    auto set = closure(nfa, std::move(seeds), seen, ++visit);
    work += set.size();
    const auto [at, fresh] = known.try_emplace(std::move(set), static_cast<Index>(dfa.states_.size()));
    if (fresh) {
      dfa.add();
      sets.push_back(&at->first);
      for (const NodeId id : at->first) dfa.states_.back().final |= nfa.nodes[id].final;
    }
    return at->second;
  };
  intern({build.rule_start(rule)});
  for (std::size_t i = 0; i < sets.size(); ++i) {
    if (dfa.states_.size() > kDfaStatesMax || work > 4'000'000) return too_large();
    // Bytes between two borders of edges behave alike.
    std::array<bool, 257> border{};
    for (const NodeId id : *sets[i]) {
      for (const SymbolEdge& edge : nfa.nodes[id].edges) border[edge.low] = border[edge.high + 1u] = true;
    }
    border[0] = true;
    for (std::size_t low = 0; low < 256;) {
      std::size_t end = low + 1;
      while (end < 256 && !border[end]) ++end;
      std::vector<NodeId> seeds;
      for (const NodeId id : *sets[i]) {
        for (const SymbolEdge& edge : nfa.nodes[id].edges)
          if (edge.low <= low && low <= edge.high) seeds.push_back(edge.target);
      }
      if (!seeds.empty()) {
        const Index next = intern(std::move(seeds));
        std::fill(dfa.states_[i].next.begin() + static_cast<std::ptrdiff_t>(low),
                  dfa.states_[i].next.begin() + static_cast<std::ptrdiff_t>(end), next);
      }
      low = end;
    }
  }
  return dfa;
}

Result<Dfa> Dfa::of_texts(const std::vector<std::string>& texts) {
  Dfa dfa;
  dfa.add();
  for (const std::string& text : texts) {
    Index at = 0;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (dfa.states_[at].next[byte] == kNone) {
        if (dfa.states_.size() >= kDfaStatesMax) return too_large();
        const Index fresh = dfa.add();
        dfa.states_[at].next[byte] = fresh;
      }
      at = dfa.states_[at].next[byte];
    }
    dfa.states_[at].final = true;
  }
  return dfa;
}

Dfa Dfa::every_text() {
  auto dfa = Dfa::of(Expression::repeat(Expression::character({{0, kCodePointMax}}), 0, kUnlimited));
  CAPSTAN_ASSERT(dfa.has_value());
  return *std::move(dfa);
}

// Characters are counted by their first bytes.
Dfa Dfa::length(std::uint32_t min, std::uint32_t max) {
  const bool endless = max == kNoBound;
  const std::uint32_t last = endless ? min : max;
  CAPSTAN_ASSERT(min <= last && last < kDfaStatesMax);
  Dfa dfa;
  for (std::uint32_t count = 0; count <= last; ++count) {
    State& state = dfa.states_[dfa.add()];
    state.final = count >= min;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const bool first = (byte & 0xC0) != 0x80;
      if (!first || (endless && count == last))
        state.next[byte] = static_cast<Index>(count);
      else if (count < last)
        state.next[byte] = static_cast<Index>(count + 1);
    }
  }
  return dfa;
}

Dfa Dfa::length_class(std::uint32_t by, std::uint32_t rest) {
  CAPSTAN_ASSERT(rest < by && by < kDfaStatesMax);
  Dfa dfa;
  for (std::uint32_t count = 0; count < by; ++count) {
    State& state = dfa.states_[dfa.add()];
    state.final = count == rest;
    for (std::size_t byte = 0; byte < 256; ++byte)
      state.next[byte] = static_cast<Index>((byte & 0xC0) != 0x80 ? (count + 1) % by : count);
  }
  return dfa;
}

Result<Dfa> Dfa::combined(const Dfa& other, Wanted wanted) const {
  Dfa out;
  std::map<std::pair<Index, Index>, Index> known;
  std::vector<std::pair<Index, Index>> pairs;
  const auto intern = [&](std::pair<Index, Index> pair) {
    const auto [at, fresh] = known.try_emplace(pair, static_cast<Index>(out.states_.size()));
    if (fresh) {
      out.add();
      pairs.push_back(pair);
      const bool mine = pair.first != kNone && states_[pair.first].final;
      const bool theirs = pair.second != kNone && other.states_[pair.second].final;
      out.states_.back().final = wanted == Wanted::kBoth    ? mine && theirs
                                 : wanted == Wanted::kFirst ? mine && !theirs
                                                            : mine || theirs;
    }
    return at->second;
  };
  intern({0, 0});
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (out.states_.size() > kDfaStatesMax) return too_large();
    const auto [mine, theirs] = pairs[i];
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const Index next = mine == kNone ? kNone : states_[mine].next[byte];
      const Index other_next = theirs == kNone ? kNone : other.states_[theirs].next[byte];
      if (next == kNone && (wanted != Wanted::kEither || other_next == kNone)) continue;
      if (wanted == Wanted::kBoth && other_next == kNone) continue;
      const Index target = intern({next, other_next});
      out.states_[i].next[byte] = target;
    }
  }
  out.trim();
  return out;
}

void Dfa::trim() {
  std::vector<std::vector<Index>> before(states_.size());
  std::vector<Index> open;
  std::vector<bool> ends(states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    Index last = kNone;
    for (const Index next : states_[i].next) {
      if (next != kNone && std::exchange(last, next) != next) before[next].push_back(static_cast<Index>(i));
    }
    ends[i] = states_[i].final;
    if (ends[i]) open.push_back(static_cast<Index>(i));
  }
  while (!open.empty()) {
    const Index state = open.back();
    open.pop_back();
    for (const Index from : before[state])
      if (!ends[from]) ends[from] = true, open.push_back(from);
  }
  std::vector<Index> names(states_.size(), kNone);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < states_.size(); ++i)
    if (ends[i] || i == 0) names[i] = static_cast<Index>(kept++);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (names[i] == kNone) continue;
    State state = states_[i];
    for (Index& next : state.next) next = next == kNone || !ends[next] ? kNone : names[next];
    states_[names[i]] = state;
  }
  states_.resize(kept);
}

Dfa Dfa::between(std::uint8_t begin, std::uint8_t end) const {
  Dfa out;
  std::map<Index, Index> known;
  std::vector<Index> open;
  const auto intern = [&](Index state) {
    const auto [at, fresh] = known.try_emplace(state, static_cast<Index>(out.states_.size()));
    if (fresh) {
      out.add();
      open.push_back(state);
    }
    return at->second;
  };
  const Index start = states_[0].next[begin];
  if (start == kNone) {
    out.add();
    return out;
  }
  intern(start);
  for (std::size_t i = 0; i < open.size(); ++i) {
    const State& state = states_[open[i]];
    out.states_[i].final = state.next[end] != kNone && states_[state.next[end]].final;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (state.next[byte] == kNone || byte == begin || byte == end) continue;
      const Index target = intern(state.next[byte]);
      out.states_[i].next[byte] = target;
    }
  }
  out.trim();
  return out;
}

bool Dfa::matches(std::string_view text) const {
  Index at = 0;
  for (const char c : text) {
    at = states_[at].next[static_cast<unsigned char>(c)];
    if (at == kNone) return false;
  }
  return states_[at].final;
}

bool Dfa::is_empty() const {
  // Every state is reachable by construction.
  return std::ranges::none_of(states_, &State::final);
}

std::optional<std::vector<std::string>> Dfa::all_texts(std::size_t count_max) const {
  constexpr std::size_t kBytesMax = 256;
  std::vector<std::string> texts;
  std::vector<std::pair<Index, std::string>> open = {{Index{0}, std::string()}};
  std::size_t work = 0;
  while (!open.empty()) {
    const auto [at, text] = std::move(open.back());
    open.pop_back();
    if (++work > count_max * kBytesMax || text.size() > kBytesMax || open.size() > count_max)
      return std::nullopt;
    if (states_[at].final) texts.push_back(text);
    if (texts.size() > count_max) return std::nullopt;
    for (std::size_t byte = 0; byte < 256; ++byte)
      if (states_[at].next[byte] != kNone)
        open.emplace_back(states_[at].next[byte], text + static_cast<char>(byte));
  }
  return texts;
}

NodeId Dfa::emit_raw(GrammarBuilder& build, NodeId from) const {
  std::vector<NodeId> nodes;
  for (std::size_t i = 0; i < states_.size(); ++i) nodes.push_back(build.new_node());
  const NodeId behind = build.new_node();
  build.empty(from, nodes[0]);
  for (std::size_t i = 0; i < states_.size() && !build.overflowed(); ++i) {
    if (states_[i].final) build.empty(nodes[i], behind);
    for (std::size_t low = 0; low < 256;) {
      const Index next = states_[i].next[low];
      std::size_t end = low + 1;
      while (end < 256 && states_[i].next[end] == next) ++end;
      if (next != kNone)
        build.edge(nodes[i], static_cast<Symbol>(low), static_cast<Symbol>(end - 1), nodes[next]);
      low = end;
    }
  }
  return behind;
}

NodeId Dfa::emit_json_string(GrammarBuilder& build, NodeId from) const {
  std::vector<NodeId> nodes;
  for (std::size_t i = 0; i < states_.size(); ++i) nodes.push_back(build.new_node());
  const NodeId behind = build.new_node();
  build.empty(from, nodes[0]);
  const auto needs_escape = [](std::size_t byte) { return byte < 0x20 || byte == '"' || byte == '\\'; };
  for (std::size_t i = 0; i < states_.size() && !build.overflowed(); ++i) {
    if (states_[i].final) build.empty(nodes[i], behind);
    for (std::size_t low = 0; low < 256;) {
      const Index next = states_[i].next[low];
      std::size_t end = low + 1;
      if (next != kNone && needs_escape(low)) {
        std::string quoted;
        append_json_string(quoted, std::string(1, static_cast<char>(low)));
        const std::string_view inside = std::string_view(quoted).substr(1, quoted.size() - 2);
        const NodeId last = build.literal(nodes[i], inside.substr(0, inside.size() - 1));
        const auto byte = static_cast<unsigned char>(inside.back());
        build.edge(last, byte, byte, nodes[next]);
      } else {
        while (end < 256 && states_[i].next[end] == next && !needs_escape(end)) ++end;
        if (next != kNone)
          build.edge(nodes[i], static_cast<Symbol>(low), static_cast<Symbol>(end - 1), nodes[next]);
      }
      low = end;
    }
  }
  return behind;
}

}  // namespace capstan::engine

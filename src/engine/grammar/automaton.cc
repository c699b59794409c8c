// Closing a set of places over calls and returns, and interning what comes out.
#include "engine/grammar/automaton.h"

#include <algorithm>

#include "base/assert.h"
#include "base/prng.h"

namespace capstan::engine {
namespace {

// An object of this many optional properties is passed in one closure.
constexpr std::size_t kVisitsMax = 16'384;

}  // namespace

Automaton::Automaton(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
  // Chains of nodes that only end the rule are short; a few passes find them, and what is missed costs a
  // frame.
  tail_.resize(grammar_->nodes.size());
  for (int pass = 0; pass < 4; ++pass) {
    for (std::size_t id = 0; id < tail_.size(); ++id) {
      const GrammarNode& node = grammar_->nodes[id];
      if (!node.edges.empty() || !node.calls.empty()) continue;
      const bool ends = std::ranges::all_of(node.empties, [&](NodeId target) { return tail_[target]; });
      tail_[id] = ends && (node.final || !node.empties.empty());
    }
  }
  visited_.resize(grammar_->nodes.size());
  frames_.push_back({0, kBottom, 0, 0});
  start_ = intern({{grammar_->rules[grammar_->root], kBottom}});
}

std::uint32_t Automaton::distance_of(Place place) const {
  return grammar_->nodes[place.node].distance + frames_[place.frame].distance;
}

Automaton::FrameId Automaton::push(NodeId then, FrameId below) {
  if (tail_[then]) return below;
  const std::uint64_t key = std::uint64_t{then} << 32 | below;
  if (const auto known = frame_ids_.find(key); known != frame_ids_.end()) return known->second;
  const auto id = static_cast<FrameId>(frames_.size());
  frames_.push_back(
      {then, below, grammar_->nodes[then].distance + frames_[below].distance, frames_[below].depth + 1});
  frame_ids_.emplace(key, id);
  return id;
}

void Automaton::follow_calls(Place place, std::vector<Place>& open) {
  const GrammarNode& node = grammar_->nodes[place.node];
  for (const RuleCall& call : node.calls) {
    const std::uint32_t way = grammar_->distance(call.rule) + grammar_->nodes[call.then].distance;
    if (is_deep(place) && way > node.distance) continue;
    open.push_back({grammar_->rules[call.rule], push(call.then, place.frame)});
  }
}

bool Automaton::visit(Place place) {
  auto& [visit, frame] = visited_[place.node];
  if (visit != visit_) {
    visit = visit_;
    frame = place.frame;
    return true;
  }
  return frame != place.frame && visited_more_.insert(place).second;
}

void Automaton::close(std::vector<Place> open, State& state) {
  ++visit_;
  visited_more_.clear();
  std::size_t visits = 0;
  while (!open.empty()) {
    const Place place = open.back();
    open.pop_back();
    if (!visit(place)) continue;
    if (++visits > kVisitsMax || state.places.size() > kPlacesMax) {
      overflowed_ = true;
      break;
    }
    const GrammarNode& node = grammar_->nodes[place.node];
    if (frames_[place.frame].depth + 1 < kFramesMax) {  // a character is one call deeper
      state.plain_run = std::max(state.plain_run, node.plain_run);
      state.any_text = state.any_text || node.any_text;
    }
    state.reasoning = state.reasoning || node.reasoning;
    state.unique_array = state.unique_array || node.unique_array;
    state.distance = std::min(state.distance, distance_of(place));
    if (!node.edges.empty()) state.places.push_back(place);
    for (const NodeId target : node.empties) {
      if (!is_deep(place) || grammar_->nodes[target].distance == node.distance)
        open.push_back({target, place.frame});
    }
    follow_calls(place, open);
    if (!node.final) continue;
    if (place.frame == kBottom) {
      state.end = true;
    } else {
      open.push_back({frames_[place.frame].then, frames_[place.frame].below});
    }
  }
  std::ranges::sort(state.places);
}

StateId Automaton::intern(std::vector<Place> seeds, bool end) {
  State state;
  state.end = end;
  if (end) state.distance = 0;
  close(std::move(seeds), state);
  if (overflowed_ || (state.places.empty() && !state.end)) return kDead;
  std::uint64_t hash = state.end;
  for (const Place& place : state.places)
    hash = Prng::mix(hash ^ (std::uint64_t{place.node} << 32 | place.frame));
  const auto [first, last] = state_ids_.equal_range(hash);
  for (auto known = first; known != last; ++known) {
    const State& other = at(known->second);
    // Equal places give equal distances; annotations of nodes without edges belong to those with edges.
    if (other.end == state.end && other.places == state.places) return known->second;
  }
  if (states_.size() >= kStatesHard) {
    overflowed_ = true;
    return kDead;
  }
  state.next.assign(kSymbols, kUnknown);
  states_.push_back(std::move(state));
  const auto id = static_cast<StateId>(states_.size() - 1);
  state_ids_.emplace(hash, id);
  return id;
}

StateId Automaton::make_step(StateId state, Symbol symbol) {
  std::vector<Place> seeds;
  for (const Place& place : at(state).places) {
    const GrammarNode& node = grammar_->nodes[place.node];
    for (const SymbolEdge& edge : node.edges) {
      if (is_deep(place) && grammar_->nodes[edge.target].distance + 1 > node.distance) continue;
      if (edge.low <= symbol && symbol <= edge.high) seeds.push_back({edge.target, place.frame});
    }
  }
  const StateId next = seeds.empty() ? kDead : intern(std::move(seeds));
  states_[static_cast<std::size_t>(state)].next[symbol] = next;
  return next;
}

Symbol Automaton::shortest_symbol(StateId id) const {
  const State& state = at(id);
  CAPSTAN_ASSERT(state.distance > 0);
  Symbol best = kSymbols;
  for (const Place& place : state.places) {
    for (const SymbolEdge& edge : grammar_->nodes[place.node].edges) {
      if (edge.low < best && distance_of({edge.target, place.frame}) + 1 == state.distance) best = edge.low;
    }
  }
  CAPSTAN_ASSERT(best < kSymbols);
  return best;
}

Symbol Automaton::only_symbol(StateId id, bool blanks) const {
  const State& state = at(id);
  if (state.end) return kSymbols;
  Symbol only = kSymbols;
  for (const Place& place : state.places) {
    for (const SymbolEdge& edge : grammar_->nodes[place.node].edges) {
      if (!blanks && edge.low == edge.high && (edge.low == ' ' || edge.low == '\n')) continue;
      if (edge.low != edge.high || (only != kSymbols && only != edge.low)) return kSymbols;
      only = edge.low;
    }
  }
  return only;
}

StateId Automaton::migrate(StateId state, Automaton& to) const {
  CAPSTAN_ASSERT(grammar_ == to.grammar_);
  std::vector<Place> seeds;
  for (const Place& place : at(state).places) {
    std::vector<NodeId> stack;
    for (FrameId frame = place.frame; frame != kBottom; frame = frames_[frame].below)
      stack.push_back(frames_[frame].then);
    FrameId frame = kBottom;
    for (auto then = stack.rbegin(); then != stack.rend(); ++then) frame = to.push(*then, frame);
    seeds.push_back({place.node, frame});
  }
  return to.intern(std::move(seeds), is_end(state));
}

}  // namespace capstan::engine

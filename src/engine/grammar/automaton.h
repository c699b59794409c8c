// Automaton: runs a Grammar symbol by symbol. Its states are numbers that are made when they are first
// needed.
//
//   auto automaton = std::make_shared<Automaton>(grammar);
//   StateId state = automaton->start();
//   state = automaton->step(state, '{');              // kDead: not allowed here
//   bool whole = automaton->is_end(state);            // what was read so far is a whole answer
//   std::uint32_t left = automaton->distance(state);  // symbols of the shortest way to an end
//
// A state is a set of (node, stack of return nodes); steps are remembered, as in RE2's lazy DFA, so walking
// the same ground again costs one array look-up a symbol. States are never given back: who walks far watches
// full() and goes on in a new Automaton by migrate().
//
// Bounds: kStatesSoft states until full() says so; kStatesHard, kPlacesMax places in one state: beyond, a
// symbol is refused and overflowed() says why. Calls nest to kFramesMax; there, only the shortest way to an
// end is open, so nesting always comes to an end. Threads: one at a time (TokenMatcher locks).
#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "engine/grammar/grammar.h"

namespace capstan::engine {

using StateId = std::int32_t;
inline constexpr StateId kDead = -1;
inline constexpr std::size_t kStatesSoft = 8'192;
inline constexpr std::size_t kStatesHard = 32'768;
inline constexpr std::size_t kPlacesMax = 2'048;
inline constexpr std::uint32_t kFramesMax = 48;

class Automaton {
 public:
  explicit Automaton(std::shared_ptr<const Grammar> grammar);

  StateId start() const { return start_; }
  StateId step(StateId state, Symbol symbol);
  bool is_end(StateId state) const { return at(state).end; }
  std::uint32_t distance(StateId state) const { return at(state).distance; }
  std::uint32_t plain_run(StateId state) const { return at(state).plain_run; }
  bool any_text(StateId state) const { return at(state).any_text; }
  bool reasoning(StateId state) const { return at(state).reasoning; }
  bool unique_array(StateId state) const { return at(state).unique_array; }
  // The first symbol of the shortest way to an end, ties to the smallest; the state behind it chooses the
  // rest of the same way. Only if distance(state) > 0.
  Symbol shortest_symbol(StateId state) const;

  // The only symbol that can come, or kSymbols if there are several, or none need come, or it is not seen at
  // once. `blanks`: spaces and line ends count, too.
  Symbol only_symbol(StateId state, bool blanks = true) const;

  bool full() const { return states_.size() >= kStatesSoft; }
  bool overflowed() const { return overflowed_; }
  std::size_t size() const { return states_.size(); }
  // The same state in another automaton of the same grammar.
  StateId migrate(StateId state, Automaton& to) const;

 private:
  using FrameId = std::uint32_t;
  static constexpr StateId kUnknown = -2;
  static constexpr FrameId kBottom = 0;

  struct Frame {
    NodeId then;
    FrameId below;
    std::uint32_t distance;  // of this frame and all below
    std::uint32_t depth;
  };
  struct Place {
    NodeId node;
    FrameId frame;
    friend auto operator<=>(const Place&, const Place&) = default;
  };
  struct State {
    std::vector<Place> places;  // sorted; only nodes with symbol edges
    std::vector<StateId> next;
    std::uint32_t distance = kNoEnd;
    std::uint32_t plain_run = 0;
    bool any_text = false;
    bool reasoning = false;
    bool unique_array = false;
    bool end = false;
  };

  const State& at(StateId state) const { return states_[static_cast<std::size_t>(state)]; }
  StateId make_step(StateId state, Symbol symbol);
  // `end`: reading may stop before the seeds, too.
  StateId intern(std::vector<Place> seeds, bool end = false);
  bool visit(Place place);
  // Everything that can be reached from the seeds without a symbol.
  void close(std::vector<Place> seeds, State& state);
  void follow_calls(Place place, std::vector<Place>& open);
  FrameId push(NodeId then, FrameId below);
  std::uint32_t distance_of(Place place) const;
  // Here only the shortest way to the end of the rule is open.
  bool is_deep(Place place) const { return frames_[place.frame].depth >= kFramesMax; }

  std::shared_ptr<const Grammar> grammar_;
  std::vector<bool> tail_;  // a node that only ends its rule: calls before it need no frame
  std::vector<State> states_;
  std::vector<Frame> frames_;
  std::unordered_map<std::uint64_t, FrameId> frame_ids_;
  std::unordered_multimap<std::uint64_t, StateId> state_ids_;  // by hash
  // What close() has visited: one frame a node, and the rest of them.
  std::vector<std::pair<std::uint32_t, FrameId>> visited_;
  std::set<Place> visited_more_;
  std::uint32_t visit_ = 0;
  StateId start_ = kDead;
  bool overflowed_ = false;
};

inline StateId Automaton::step(StateId state, Symbol symbol) {
  const StateId known = states_[static_cast<std::size_t>(state)].next[symbol];
  return known != kUnknown ? known : make_step(state, symbol);
}

}  // namespace capstan::engine

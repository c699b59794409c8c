// A state's mask is a base (a set of tokens known beforehand: plain text of so many characters, or all text)
// and the further tokens that a walk found. With it stands the largest distance behind any of these tokens:
// while the budget is larger, no token can spend it, and the mask is copied. Nearer to the end, every token's
// cost is asked.
#include "engine/grammar/token_matcher.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "base/assert.h"

namespace capstan::engine {

struct TokenPlan::StateMasks {
  const TokenMask* base = nullptr;
  std::vector<std::int32_t> tokens;       // beyond the base; or
  TokenMask mask;                         // the whole mask, if they are many
  std::uint32_t distance_max = 0;         // symbols to an end behind any of them
  std::optional<std::uint32_t> cost_max;  // tokens to an end behind any of them

  std::size_t bytes() const { return tokens.size() * sizeof(std::int32_t) + mask.size() * 8 + 64; }
};

struct TokenPlan::Ground {
  Ground(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> the_trie)
      : automaton(std::move(grammar)), trie(std::move(the_trie)) {}

  StateMasks& masks(StateId state);
  StateMasks find_masks(StateId state);
  std::uint32_t cost(StateId state);
  std::uint32_t cost_max(StateId state);
  // Calls visit(token, state behind) for every token that `from` accepts and that is not in `base`, which is
  // null, the trie's text, or the plain tokens of this state.
  template <class Visit>
  void walk(StateId from, const TokenMask* base, Visit visit);
  const TokenMask* base_of(StateId state) const;
  void cheapest(StateId state, std::span<std::uint64_t> mask);
  bool within(StateId state, std::uint32_t tokens, std::uint32_t reserve) {
    return cost(state) + (automaton.reasoning(state) ? reserve : 0) <= tokens;
  }
  void within_budget(StateId state, std::span<std::uint64_t> mask, std::uint32_t tokens_left,
                     std::uint32_t reserve);

  std::mutex mutex;
  Automaton automaton;
  std::shared_ptr<const TokenTrie> trie;
  std::unordered_map<StateId, StateMasks> kept;
  std::size_t kept_bytes = 0;
  std::vector<std::uint32_t> costs;  // by state; kNoEnd: not known yet
  std::vector<StateId> path;         // scratch: the states above a node of the trie
};

const TokenMask* TokenPlan::Ground::base_of(StateId state) const {
  if (automaton.any_text(state)) return &trie->text();
  return automaton.plain_run(state) > 0 ? &trie->plain(automaton.plain_run(state)) : nullptr;
}

template <class Visit>
void TokenPlan::Ground::walk(StateId from, const TokenMask* base, Visit visit) {
  for (const MarkToken& mark : trie->marks()) {
    if (const StateId next = automaton.step(from, mark.symbol); next != kDead) visit(mark.token, next);
  }
  if (base == &trie->text()) return;
  const auto walked = base != nullptr ? trie->not_plain() : trie->all();
  path.assign(256, kDead);
  path[0] = from;
  for (std::size_t i = 0; i < walked.size();) {
    const TokenTrie::Node& node = walked[i];
    const StateId next = automaton.step(path[node.depth - 1u], node.byte);
    if (next == kDead) {
      i = node.subtree_end;
      continue;
    }
    path[node.depth] = next;
    if (node.token >= 0) visit(node.token, next);
    ++i;
  }
}

TokenPlan::StateMasks TokenPlan::Ground::find_masks(StateId state) {
  StateMasks masks;
  masks.base = base_of(state);
  if (masks.base != nullptr) masks.distance_max = automaton.distance(state);
  walk(state, masks.base, [&](std::int32_t token, StateId next) {
    masks.tokens.push_back(token);
    masks.distance_max = std::max(masks.distance_max, automaton.distance(next));
  });
  if (masks.tokens.size() <= trie->vocabulary() / 32) return masks;
  masks.mask = masks.base != nullptr ? *masks.base : TokenMask(trie->mask_words(), 0);
  for (const std::int32_t token : masks.tokens) add_token(masks.mask, token);
  masks.tokens = {};
  return masks;
}

TokenPlan::StateMasks& TokenPlan::Ground::masks(StateId state) {
  if (const auto known = kept.find(state); known != kept.end()) return known->second;
  if (kept_bytes > kMaskBytesMax) {
    kept.clear();
    kept_bytes = 0;
  }
  StateMasks found = find_masks(state);
  kept_bytes += found.bytes();
  return kept.emplace(state, std::move(found)).first->second;
}

// Along the shortest way the longest token that fits is taken; where it ends, the rest of the way is the
// shortest way of that state, so the costs of all of them follow from the last to the first.
std::uint32_t TokenPlan::Ground::cost(StateId state) {
  std::vector<StateId> stops;
  std::uint32_t known = kNoEnd;
  for (StateId at = state;;) {
    if (costs.size() < automaton.size()) costs.resize(automaton.size() * 2, kNoEnd);
    known = automaton.distance(at) == 0 ? 0 : costs[static_cast<std::size_t>(at)];
    if (known != kNoEnd) break;
    stops.push_back(at);
    const auto nodes = trie->all();
    std::size_t begin = 0, end = nodes.size();
    StateId stop = kDead, next = at;
    while (next != kDead && automaton.distance(next) > 0) {
      const Symbol symbol = automaton.shortest_symbol(next);
      next = automaton.step(next, symbol);
      if (symbol >= kFirstMark) {
        if (stop == kDead) stop = next;
        break;
      }
      std::size_t child = begin;
      while (child < end && nodes[child].byte != symbol) child = nodes[child].subtree_end;
      if (child >= end) break;
      if (nodes[child].token >= 0) stop = next;
      begin = child + 1;
      end = nodes[child].subtree_end;
    }
    if (stop == kDead) {  // the automaton is at its bounds
      known = kDistanceMax;
      break;
    }
    at = stop;
  }
  if (costs.size() < automaton.size()) costs.resize(automaton.size() * 2, kNoEnd);
  for (auto stop = stops.rbegin(); stop != stops.rend(); ++stop)
    costs[static_cast<std::size_t>(*stop)] = ++known;
  return known;
}

std::uint32_t TokenPlan::Ground::cost_max(StateId state) {
  const TokenMask* free_text = automaton.any_text(state) ? &trie->text() : nullptr;
  std::uint32_t most = free_text != nullptr ? cost(state) : 0;
  StateId last = kDead;
  walk(state, free_text, [&](std::int32_t, StateId next) {
    if (std::exchange(last, next) != next) most = std::max(most, cost(next));
  });
  return most;
}

void TokenPlan::Ground::within_budget(StateId state, std::span<std::uint64_t> mask, std::uint32_t tokens_left,
                                      std::uint32_t reserve) {
  const TokenMask* free_text = automaton.any_text(state) ? &trie->text() : nullptr;
  if (free_text != nullptr && within(state, tokens_left - 1, reserve))
    std::ranges::copy(*free_text, mask.begin());
  StateId last = kDead;
  bool fits = false;
  walk(state, free_text, [&](std::int32_t token, StateId next) {
    if (std::exchange(last, next) != next) fits = within(next, tokens_left - 1, reserve);
    if (fits) add_token(mask, token);
  });
}

// No token fits: those that leave the least to do.
void TokenPlan::Ground::cheapest(StateId state, std::span<std::uint64_t> mask) {
  std::uint32_t best = kNoEnd;
  std::vector<std::int32_t> tokens;
  walk(state, automaton.any_text(state) ? &trie->text() : nullptr, [&](std::int32_t token, StateId next) {
    const std::uint32_t left = cost(next);
    if (left > best) return;
    if (left < best) tokens.clear();
    best = left;
    tokens.push_back(token);
  });
  for (const std::int32_t token : tokens) add_token(mask, token);
}

TokenPlan::TokenPlan(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)), trie_(std::move(trie)), ground_(new_ground()) {
  CAPSTAN_ASSERT(trie_->has_all_bytes());
}

std::shared_ptr<TokenPlan::Ground> TokenPlan::new_ground() const {
  return std::make_shared<Ground>(grammar_, trie_);
}

TokenMatcher::TokenMatcher(std::shared_ptr<TokenPlan> plan) : plan_(std::move(plan)) {
  const std::lock_guard lock(plan_->mutex_);
  ground_ = plan_->ground_;
  state_ = ground_->automaton.start();
}

void TokenMatcher::leave_full_ground() {
  const std::lock_guard lock(plan_->mutex_);
  if (plan_->ground_ == ground_) plan_->ground_ = plan_->new_ground();
  // A ground of our own: another matcher may be filling the shared one.
  auto fresh = plan_->new_ground();
  {
    const std::lock_guard ground_lock(ground_->mutex);
    state_ = ground_->automaton.migrate(state_, fresh->automaton);
  }
  ground_ = std::move(fresh);
}

void TokenMatcher::allowed(std::span<std::uint64_t> mask, std::uint32_t tokens_left, std::uint32_t reserve) {
  CAPSTAN_ASSERT(tokens_left >= 1 && mask.size() >= ground_->trie->mask_words());
  std::ranges::fill(mask, 0);
  if (failed()) return;
  const std::lock_guard lock(ground_->mutex);
  if (!plan_->grammar_->unique_arrays) return find_allowed(mask, tokens_left, reserve);
  if (const std::uint32_t cost = ground_->cost(state_); tokens_left > cost)
    tokens_left = std::max(cost, tokens_left - std::min(tokens_left, kUniqueReserve));
  find_allowed(mask, std::max<std::uint32_t>(tokens_left, 1), reserve);
  if (items_.idle()) return;
  drop_repetitions(mask);
  if (std::ranges::any_of(mask, [](std::uint64_t word) { return word != 0; })) return;
  // All that fits would be a repetition: better longer than wrong.
  find_allowed(mask, kDistanceMax * 4, 0);
  drop_repetitions(mask);
}

// After the token, is there a way to end the item as another than those before? Ways that have no choice are
// followed.
bool TokenMatcher::leads_to_repetition(StateId state, UniqueItems items) const {
  Automaton& automaton = ground_->automaton;
  if (items.would_repeat())
    return std::ranges::none_of(std::string_view("0123456789.eE"), [&](char c) {
      return automaton.step(state, static_cast<unsigned char>(c)) != kDead;
    });
  constexpr int kStepsMax = 256;
  for (int i = 0; i < kStepsMax && !items.idle(); ++i) {
    const Symbol only = automaton.only_symbol(state, false);
    if (only >= kFirstMark) return false;
    state = automaton.step(state, only);
    if (state == kDead) return false;
    if (!items.read(static_cast<char>(only), automaton.unique_array(state))) return true;
  }
  return false;
}

void TokenMatcher::drop_repetitions(std::span<std::uint64_t> mask) const {
  const TokenTrie& trie = *ground_->trie;
  const bool first = !items_.has_items();
  for (std::size_t word = 0; word < trie.mask_words(); ++word) {
    // Inside a string, only a quote can end an item.
    std::uint64_t left = items_.in_string() ? mask[word] & trie.quoted()[word] : mask[word];
    for (; left != 0; left &= left - 1) {
      const auto token =
          static_cast<std::int32_t>(word * 64 + static_cast<std::size_t>(std::countr_zero(left)));
      const std::string_view bytes = trie.bytes(token);
      if (first && bytes.find(',') == std::string_view::npos) continue;
      UniqueItems items = items_;
      StateId state = state_;
      bool fine = true;
      for (std::size_t i = 0; i < bytes.size() && fine && state != kDead; ++i) {
        state = ground_->automaton.step(state, static_cast<unsigned char>(bytes[i]));
        fine = state != kDead && items.read(bytes[i], ground_->automaton.unique_array(state));
      }
      if (!fine || leads_to_repetition(state, std::move(items))) mask[word] &= ~(left & (~left + 1));
    }
  }
}

void TokenMatcher::find_allowed(std::span<std::uint64_t> mask, std::uint32_t tokens_left,
                                std::uint32_t reserve) {
  TokenPlan::Ground& ground = *ground_;
  TokenPlan::StateMasks& masks = ground.masks(state_);
  const std::uint64_t left = std::uint64_t{tokens_left} - 1;
  bool ample = masks.distance_max + std::uint64_t{reserve} <= left;
  if (!ample) {
    if (!masks.cost_max) masks.cost_max = ground.cost_max(state_);
    ample = *masks.cost_max + std::uint64_t{reserve} <= left;
  }
  if (ample) {
    if (!masks.mask.empty()) {
      std::ranges::copy(masks.mask, mask.begin());
      return;
    }
    if (masks.base != nullptr) std::ranges::copy(*masks.base, mask.begin());
    for (const std::int32_t token : masks.tokens) add_token(mask, token);
    return;
  }
  ground.within_budget(state_, mask, tokens_left, reserve);
  if (std::ranges::all_of(mask, [](std::uint64_t word) { return word == 0; })) ground.cheapest(state_, mask);
}

bool TokenMatcher::accept_symbols(std::string_view bytes, Symbol mark) {
  if (state_ == kDead) return false;
  bool full = false;
  {
    const std::lock_guard lock(ground_->mutex);
    Automaton& automaton = ground_->automaton;
    StateId state = state_;
    if (mark < kSymbols) state = automaton.step(state, mark);
    UniqueItems items = items_;
    const bool watch = plan_->grammar_->unique_arrays;
    for (std::size_t i = 0; i < bytes.size() && state != kDead; ++i) {
      state = automaton.step(state, static_cast<unsigned char>(bytes[i]));
      if (watch && state != kDead && !items.read(bytes[i], automaton.unique_array(state))) return false;
    }
    if (state == kDead) return false;
    state_ = state;
    items_ = std::move(items);
    full = automaton.full();
  }
  if (full) leave_full_ground();
  return true;
}

bool TokenMatcher::accept(std::int32_t token) {
  const Symbol mark = ground_->trie->mark(token);
  if (mark < kSymbols) return accept_symbols({}, mark);
  const std::string_view bytes = ground_->trie->bytes(token);
  return !bytes.empty() && accept_symbols(bytes, kSymbols);
}

bool TokenMatcher::accept_bytes(std::string_view bytes) { return accept_symbols(bytes, kSymbols); }

TokenMatcher::Forced TokenMatcher::forced() const {
  Forced out;
  if (state_ == kDead) return out;
  const std::lock_guard lock(ground_->mutex);
  StateId at = state_;
  while (at != kDead && out.bytes.size() < kForcedBytesMax) {
    const Symbol only = ground_->automaton.only_symbol(at);
    if (only >= kFirstMark) {
      out.mark = only;
      break;
    }
    out.bytes += static_cast<char>(only);
    at = ground_->automaton.step(at, only);
  }
  return out;
}

bool TokenMatcher::is_end() const {
  const std::lock_guard lock(ground_->mutex);
  return state_ != kDead && ground_->automaton.is_end(state_);
}

bool TokenMatcher::reasoning() const {
  const std::lock_guard lock(ground_->mutex);
  return state_ != kDead && ground_->automaton.reasoning(state_);
}

bool TokenMatcher::failed() const {
  const std::lock_guard lock(ground_->mutex);
  return state_ == kDead || ground_->automaton.overflowed();
}

std::uint32_t TokenMatcher::tokens_to_end() {
  const std::lock_guard lock(ground_->mutex);
  return state_ == kDead ? kNoEnd : ground_->cost(state_);
}

}  // namespace capstan::engine

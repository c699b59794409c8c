// Nodes own their blocks together with the sequences that use them: a block with one reference is the tree's alone and may go.
// A sequence refers to every full block of its prefix, so the nodes on its path never go while it runs, and cursors stay valid.
#include "engine/batching/prefix_cache.h"

#include <algorithm>

#include "base/assert.h"
#include "base/token_chain.h"

namespace capstan::engine {
namespace {

constexpr int kBlock = KvPool::kBlockTokens;
constexpr int kKeepEvery = 16;                // blocks: a resumption that falls back loses at most so many
constexpr std::size_t kChildrenLookedAt = 256;  // for a prompt that parts within a block

int common_length(std::span<const TokenId> a, std::span<const TokenId> b) {
  const auto [end, other] = std::ranges::mismatch(a, b);
  return static_cast<int>(end - a.begin());
}

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;
  std::vector<std::unique_ptr<Node>> children = {};
  std::vector<TokenId> tokens = {};  // fewer than a block's only in a leaf, the end of a sequence
  int index = -1;                    // of the block in its sequence; -1: the root
  std::uint64_t name = kTokenChainStart;
  KvBlockRef full = {}, sliding = {};  // sliding may be null: dropped
  bool kept = false;                   // the sliding block stays as long as the node
  std::uint64_t age = 0, used = 0;     // when it was made, and used last

  bool complete() const { return tokens.size() == kBlock; }
};

// The nodes that hold tokens from block `first` on, and the position that they reach.
struct PrefixCache::Path {
  int first = 0;
  int length = 0;
  std::vector<Node*> nodes = {};
};

bool PrefixCache::Oldest::operator()(const Node* a, const Node* b) const {
  return a->used != b->used ? a->used < b->used : a->age < b->age;
}

PrefixCache::PrefixCache(KvPool& pool, KvReport* report, TokenId boundary)
    : pool_(pool),
      report_(report),
      boundary_(boundary),
      window_blocks_((pool.window() + kBlock - 2) / kBlock + 1),
      root_(std::make_unique<Node>()) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Node* PrefixCache::find(Node* parent, std::uint64_t name, std::span<const TokenId> tokens) const {
  const auto [begin, end] = by_name_.equal_range(name);
  for (auto at = begin; at != end; ++at) {
    if (at->second->parent == parent && std::ranges::equal(at->second->tokens, tokens)) return at->second;
  }
  return nullptr;
}

PrefixCache::Path PrefixCache::follow(std::span<const TokenId> tokens, int limit, Cursor cursor) const {
  Node* at = cursor != nullptr ? cursor : root_.get();
  Path path{.first = at->index + 1, .length = kBlock * (at->index + 1)};
  while (path.length < limit) {
    const auto rest = tokens.subspan(path.length);
    Node* next = nullptr;
    int common = std::min(kBlock, limit - path.length);
    if (rest.size() >= kBlock) next = find(at, next_block_name(at->name, rest.first(kBlock)), rest.first(kBlock));
    if (next == nullptr) {
      const auto wanted = rest.first(common);
      common = 0;
      const std::size_t count = at->children.size();
      for (std::size_t i = count; i-- > 0 && count - i <= kChildrenLookedAt;) {
        const int here = common_length(at->children[i]->tokens, wanted);
        if (here > common) common = here, next = at->children[i].get();
      }
    }
    if (next == nullptr) break;
    path.nodes.push_back(next);
    path.length += common;
    if (common < kBlock) break;
    at = next;
  }
  return path;
}

bool PrefixCache::window_is_there(const Path& path, int cut, const KvCache& kv) const {
  for (int i = kv.window_begin_block(cut); i <= (cut - 1) / kBlock; ++i) {
    if (i < path.first ? !kv.block(KvKind::kSliding, i) : !path.nodes[i - path.first]->sliding) return false;
  }
  return true;
}

PrefixCache::Cursor PrefixCache::resume(std::span<const TokenId> tokens, int limit, KvCache& kv, Cursor cursor) {
  const Path path = follow(tokens, limit, cursor);
  for (int count = static_cast<int>(path.nodes.size()); count > 0; --count) {
    const int cut = std::min(path.length, kBlock * (path.first + count));
    if (cut <= kv.length()) break;
    if (!window_is_there(path, cut, kv)) continue;
    for (int i = 0; i < count; ++i) kv.attach(KvKind::kFull, path.first + i, path.nodes[i]->full);
    for (int i = std::max(path.first, kv.window_begin_block(cut)); i <= (cut - 1) / kBlock; ++i) {
      Node* node = path.nodes[i - path.first];
      kv.attach(KvKind::kSliding, i, node->sliding);
      keep(node);  // where one sequence parted, others will
    }
    kv.resume(cut);
    touch(path.nodes[count - 1]);
    const int complete = cut / kBlock - path.first;  // of the path's nodes, those that lie before the cut
    return complete > 0 ? path.nodes[complete - 1] : cursor;
  }
  return cursor;
}

// Is the block in the window before a place where other sequences may part from this one?
bool PrefixCache::parting_point(std::span<const TokenId> tokens, int prompt, int index) const {
  const int last = (prompt - 1) / kBlock;
  if (index <= last && index > last - window_blocks_) return true;
  if (index % kKeepEvery >= kKeepEvery - window_blocks_) return true;
  const auto near = tokens.subspan(static_cast<std::size_t>(index) * kBlock);
  const auto window = near.first(std::min(near.size(), static_cast<std::size_t>(window_blocks_ * kBlock)));
  return std::ranges::find(window, boundary_) != window.end();
}

// The sequence has computed what the tree has already, bit for bit: one copy is enough, the tree's where it has one.
void PrefixCache::share(Node* node, int index, KvCache& kv) {
  kv.attach(KvKind::kFull, index, node->full);
  KvBlockRef sliding = kv.block(KvKind::kSliding, index);
  if (!sliding) return;
  if (node->sliding) {
    kv.attach(KvKind::kSliding, index, node->sliding);
  } else {
    node->sliding = std::move(sliding);
    if (!node->kept) plain_.emplace(node->age, node);
  }
}

PrefixCache::Cursor PrefixCache::publish(Cursor cursor, std::span<const TokenId> tokens, int prompt, KvCache& kv) {
  Node* at = cursor != nullptr ? cursor : root_.get();
  while (kBlock * (at->index + 2) <= kv.length()) {
    const int index = at->index + 1;
    const auto block = tokens.subspan(static_cast<std::size_t>(index) * kBlock, kBlock);
    const std::uint64_t name = next_block_name(at->name, block);
    Node* node = find(at, name, block);
    if (node != nullptr) {
      share(node, index, kv);
    } else {
      node = add(at, name, block, index, kv);
    }
    if (parting_point(tokens, prompt, index)) keep(node);
    at = node;
  }
  return at == root_.get() ? nullptr : at;
}

void PrefixCache::finish(Cursor cursor, std::span<const TokenId> tokens, KvCache& kv) {
  Node* at = cursor != nullptr ? cursor : root_.get();
  const int begin = kBlock * (at->index + 1);
  if (kv.length() > begin) {
    const auto rest = tokens.subspan(begin, kv.length() - begin);
    Node* covering = nullptr;
    for (const auto& child : at->children) {
      if (common_length(child->tokens, rest) == static_cast<int>(rest.size())) covering = child.get();
    }
    at = covering != nullptr ? covering : add(at, 0, rest, at->index + 1, kv);
  }
  if (at == root_.get()) return;
  touch(at);
  for (int i = 0; i < window_blocks_ && at->index >= 0; ++i, at = at->parent) keep(at);
}

PrefixCache::Node* PrefixCache::add(Node* parent, std::uint64_t name, std::span<const TokenId> tokens, int index,
                                    KvCache& kv) {
  drop_covered(parent, tokens);
  auto owned = std::make_unique<Node>(Node{.parent = parent,
                                           .tokens = {tokens.begin(), tokens.end()},
                                           .index = index,
                                           .name = name,
                                           .full = kv.block(KvKind::kFull, index),
                                           .sliding = kv.block(KvKind::kSliding, index),
                                           .kept = pool_.block_bytes(KvKind::kSliding) == 0,
                                           .age = ++clock_,
                                           .used = clock_});
  Node* node = owned.get();
  leaves_.erase(parent);
  leaves_.insert(node);
  if (node->sliding && !node->kept) plain_.emplace(node->age, node);
  if (node->complete()) {
    by_name_.emplace(name, node);
    if (report_ != nullptr) report_->added(name, parent->name);
  }
  parent->children.push_back(std::move(owned));
  ++stats_.blocks;
  return node;
}

// Ends of sequences that the new block holds as well are of no more use.
void PrefixCache::drop_covered(Node* parent, std::span<const TokenId> tokens) {
  std::vector<Node*> covered;
  const std::size_t count = parent->children.size();
  for (std::size_t i = count; i-- > 0 && count - i <= kChildrenLookedAt;) {
    Node* child = parent->children[i].get();
    if (!child->complete() && common_length(child->tokens, tokens) == static_cast<int>(child->tokens.size()))
      covered.push_back(child);
  }
  for (Node* node : covered) remove(node);
}

void PrefixCache::remove(Node* leaf) {
  CAPSTAN_ASSERT(leaf->children.empty() && leaf->index >= 0);
  Node* parent = leaf->parent;
  leaves_.erase(leaf);
  plain_.erase(leaf->age);
  if (leaf->complete()) {
    const auto [begin, end] = by_name_.equal_range(leaf->name);
    by_name_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == leaf; }));
    if (report_ != nullptr) report_->removed(leaf->name);
  }
  parent->used = std::max(parent->used, leaf->used);
  std::erase_if(parent->children, [&](const auto& child) { return child.get() == leaf; });
  --stats_.blocks;
  if (parent->children.empty() && parent->index >= 0) leaves_.insert(parent);
}

void PrefixCache::touch(Node* node) {
  const bool leaf = leaves_.erase(node) > 0;
  node->used = ++clock_;
  if (leaf) leaves_.insert(node);
}

void PrefixCache::keep(Node* node) {
  node->kept = true;
  plain_.erase(node->age);
}

bool PrefixCache::evict_one() {
  for (const auto& [age, node] : plain_) {
    if (node->sliding.references() > 1) continue;
    node->sliding = {};
    plain_.erase(node->age);
    return true;
  }
  for (Node* leaf : leaves_) {
    if (leaf->full.references() > 1 || (leaf->sliding && leaf->sliding.references() > 1)) continue;
    remove(leaf);
    ++stats_.evicted_blocks;
    return true;
  }
  return false;
}

bool PrefixCache::make_room(int full, int sliding) {
  while (!pool_.has_room(full, sliding)) {
    if (!evict_one()) return false;
  }
  return true;
}

void PrefixCache::clear() {
  while (evict_one()) {
  }
}

void PrefixCache::count_query(int tokens, int hits) {
  stats_.query_tokens += static_cast<std::uint64_t>(tokens);
  stats_.hit_tokens += static_cast<std::uint64_t>(hits);
}

std::uint64_t PrefixCache::evictable_bytes() const {
  std::uint64_t sum = 0;
  std::vector<const Node*> todo = {root_.get()};
  while (!todo.empty()) {
    const Node* node = todo.back();
    todo.pop_back();
    for (const auto& child : node->children) todo.push_back(child.get());
    if (node->full && node->full.references() == 1) sum += pool_.block_bytes(KvKind::kFull);
    if (node->sliding && node->sliding.references() == 1) sum += pool_.block_bytes(KvKind::kSliding);
  }
  return sum;
}

PrefixCacheStats PrefixCache::stats() const { return stats_; }

}  // namespace capstan::engine

// PrefixCache: blocks of keys and values that earlier sequences computed, found again by their tokens.
//
//   PrefixCache cache(pool);
//   Cursor cursor = cache.resume(prompt, limit, kv, {});       // an empty kv now holds the longest prefix that is there
//   cursor = cache.publish(cursor, tokens, kv);                // every block that kv has completed since
//   cache.finish(cursor, tokens, kv);                          // and the unfinished one, at the sequence's end
//
// A tree: an edge is a block of 64 tokens, compared token by token under its parent, so a hit is exact; names (token_chain.h)
// only find candidates. A prompt that leaves a cached sequence within a block resumes at the very token: the block is shared and
// KvCache copies it when the sequence writes on.
//
// Sliding layers need only the window before the point of resumption. A node's sliding block is kept for good where sequences
// tend to part: the window before a prompt's end, a message's start, a sequence's end, and before every 16th block. The others
// are the first to go when memory is short; then a resumption falls back to the nearest point before. This is what makes a turn
// resume whose history lost its analysis text: it parts from the turn before near the end of that one's prompt.
//
// Memory: bounded by the pool. make_room() drops plain sliding blocks, oldest first, then leaves of the tree that nobody uses,
// least recently used first. Threads: one owner.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/batching/kv_report.h"
#include "engine/model/kv_cache.h"

namespace capstan::engine {

struct PrefixCacheStats {
  int blocks = 0;  // of the tree, incomplete ones included
  std::uint64_t evicted_blocks = 0;
  std::uint64_t query_tokens = 0;  // of prompts that were looked up
  std::uint64_t hit_tokens = 0;    // of them found
};

class PrefixCache {
 public:
  struct Node;
  // Where a sequence stands in the tree: the node of its last complete block; null at the root.
  using Cursor = Node*;

  // `report` may be null; it must outlive the cache. `boundary` is a token that begins a message, or -1.
  explicit PrefixCache(KvPool& pool, KvReport* report = nullptr, TokenId boundary = -1);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Moves `kv`, which holds a prefix of `tokens` and whose complete blocks end at `cursor`, on to the largest length up to
  // `limit` that cached blocks allow. Nothing changes if they do not reach beyond kv.length().
  Cursor resume(std::span<const TokenId> tokens, int limit, KvCache& kv, Cursor cursor);
  // Adds kv's complete blocks behind `cursor`. `prompt` tokens of the sequence are its prompt. Blocks that the tree has already
  // are exchanged for the tree's, so that equal ones take memory once.
  Cursor publish(Cursor cursor, std::span<const TokenId> tokens, int prompt, KvCache& kv);
  // The sequence ends at kv.length(): its last, incomplete block is added too, and the window before its end is kept.
  void finish(Cursor cursor, std::span<const TokenId> tokens, KvCache& kv);

  // Frees cached blocks until the pool has room. False if nothing more can be freed.
  bool make_room(int full, int sliding);
  void count_query(int tokens, int hits);
  std::uint64_t evictable_bytes() const;  // what make_room() could free in all. Cost: a walk over the tree
  PrefixCacheStats stats() const;
  void clear();  // everything that no sequence uses

 private:
  struct Oldest {
    bool operator()(const Node* a, const Node* b) const;
  };
  struct Path;
  Path follow(std::span<const TokenId> tokens, int limit, Cursor cursor) const;
  bool window_is_there(const Path& path, int cut, const KvCache& kv) const;
  Node* find(Node* parent, std::uint64_t name, std::span<const TokenId> tokens) const;
  Node* add(Node* parent, std::uint64_t name, std::span<const TokenId> tokens, int index, KvCache& kv);
  void drop_covered(Node* parent, std::span<const TokenId> tokens);
  void remove(Node* leaf);
  void touch(Node* node);
  bool parting_point(std::span<const TokenId> tokens, int prompt, int index) const;
  void share(Node* node, int index, KvCache& kv);
  void keep(Node* node);
  bool evict_one();

  KvPool& pool_;
  KvReport* report_;
  TokenId boundary_;
  int window_blocks_;  // that a window can touch
  std::uint64_t clock_ = 0;
  std::unique_ptr<Node> root_;
  std::unordered_multimap<std::uint64_t, Node*> by_name_;  // complete blocks
  std::set<Node*, Oldest> leaves_;
  std::map<std::uint64_t, Node*> plain_;  // by age: with a sliding block that is not kept for good
  PrefixCacheStats stats_;
};

}  // namespace capstan::engine

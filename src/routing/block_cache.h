// The blocks of a prefix cache, least recently used first out: what a replica has, or what a router believes
// it has.
//
//   BlockCache cache(4'000);
//   std::size_t hit = cache.match(chain);    // blocks of the prefix that are there
//   cache.touch(chain);                      // now they are, and the newest
//
// A chain is a prompt's blocks in order; the key of a block stands for itself and all before it, so equal
// keys mean equal prefixes. What falls out does so from a chain's end, since a block is of no use without
// those before it. Pinned blocks (of requests that run) never fall out. Pure.  Cost: O(1) a block; 40 bytes
// each.  Threads: one owner.
#pragma once

#include <boost/unordered_map.hpp>
#include <cstdint>
#include <span>
#include <vector>

namespace capstan::routing {

class BlockCache {
 public:
  explicit BlockCache(std::size_t capacity) : capacity_(capacity) {}

  std::size_t match(std::span<const std::uint64_t> chain) const;
  // The blocks become the newest; those that are not there are added, as far as room can be made.
  void touch(std::span<const std::uint64_t> chain);
  // As touch, and they stay until `unpin` of the same chain. False, and nothing changed, if there is no room
  // for them.
  bool pin(std::span<const std::uint64_t> chain);
  void unpin(std::span<const std::uint64_t> chain);
  // Other uses of the same memory: so many blocks are not for caching now. False if they are not to be had.
  bool reserve(std::size_t blocks);
  void release(std::size_t blocks) { reserved_ -= blocks; }

  std::size_t size() const { return known_.size(); }
  std::size_t capacity() const { return capacity_; }

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Block {
    std::uint64_t key = 0;
    std::uint32_t older = kNone, newer = kNone;  // among those that may fall out
    std::uint32_t pins = 0;
  };

  void link(std::uint32_t at);
  void unlink(std::uint32_t at);
  bool make_room();  // for one more
  void drop_oldest();
  std::uint32_t add(std::uint64_t key);

  std::size_t capacity_;
  std::size_t reserved_ = 0;
  std::size_t pinned_ = 0;
  boost::unordered_map<std::uint64_t, std::uint32_t> known_;  // looked up, never iterated
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> free_;
  std::uint32_t oldest_ = kNone, newest_ = kNone;
};

}  // namespace capstan::routing

// The cached blocks of one replica, as it reports them (docs/formats/kv-report.md).
//
//   ReportedBlocks blocks;
//   blocks.reset();  blocks.add(name);  blocks.remove(name);
//   std::size_t cached = blocks.match(names) * blocks.block_tokens();   // of a prompt, whose blocks' names are known
//
// Pure.  Threads: one owner.  Cost: O(1) a block.  Bounds: kBlocksMax; what a replica reports beyond is not remembered, so
// that it is told to have less than it has.
#pragma once

#include <boost/unordered_set.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace capstan::routing {

class ReportedBlocks {
 public:
  static constexpr std::size_t kBlocksMax = 1u << 20;  // 64 million tokens

  void reset() { names_.clear(); }
  void add(std::uint64_t name) {
    if (names_.size() < kBlocksMax) names_.insert(name);
  }
  void remove(std::uint64_t name) { names_.erase(name); }
  std::size_t size() const { return names_.size(); }
  // Blocks of the prompt's beginning that are there.
  std::size_t match(std::span<const std::uint64_t> names) const {
    std::size_t count = 0;
    while (count < names.size() && names_.count(names[count]) > 0) ++count;
    return count;
  }

 private:
  boost::unordered_set<std::uint64_t> names_;  // looked up, never iterated
};

}  // namespace capstan::routing

// Goal: what a replica reports, and what is estimated from texts, find a prompt's beginning and no more.
#include "routing/reported_blocks.h"

#include <gtest/gtest.h>

#include <string>

#include "routing/block_cache.h"
#include "routing/text_chain.h"

namespace capstan::routing {
namespace {

TEST(ReportedBlocksTest, MatchesThePromptsBeginningOnly) {
  ReportedBlocks blocks;
  for (const std::uint64_t name : {1u, 2u, 4u}) blocks.add(name);
  const std::vector<std::uint64_t> prompt{1, 2, 3, 4};
  EXPECT_EQ(blocks.match(prompt), 2u);
  blocks.add(3);
  EXPECT_EQ(blocks.match(prompt), 4u);
  blocks.remove(1);
  EXPECT_EQ(blocks.match(prompt), 0u);
  blocks.reset();
  EXPECT_EQ(blocks.size(), 0u);
}

TEST(TextChainTest, TextsThatBeginAlikeShareTheirFirstNames) {
  const std::string turn(3 * kPieceBytes + 10, 'a');
  std::string next = turn + std::string(2 * kPieceBytes, 'b');
  BlockCache cache(100);
  cache.touch(text_chain(turn));
  EXPECT_EQ(text_chain(next).size(), 5u);
  EXPECT_EQ(cache.match(text_chain(next)), 3u);
  next[0] = 'x';
  EXPECT_EQ(cache.match(text_chain(next)), 0u);
  EXPECT_TRUE(text_chain("short").empty());
  EXPECT_EQ(text_chain(std::string((kPiecesMax + 9) * kPieceBytes, 'c')).size(), kPiecesMax);
}

}  // namespace
}  // namespace capstan::routing

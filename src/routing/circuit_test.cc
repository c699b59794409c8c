// Goal: a replica that fails in a row gets nothing for a while, then one request that tells whether it is back.
#include "routing/circuit.h"

#include <gtest/gtest.h>

namespace capstan::routing {
namespace {

using Failure = Circuit::Failure;

void fail(Circuit& circuit, std::int64_t now_ms, Failure failure, int times = 1) {
  for (int i = 0; i < times; ++i) {
    circuit.sent(now_ms);
    circuit.failed(now_ms, failure);
  }
}

TEST(CircuitTest, SoftFailuresInARowOpenItAndASuccessBetweenThemDoesNot) {
  Circuit circuit;
  fail(circuit, 0, Failure::kSoft, Circuit::kFailuresInRow - 1);
  EXPECT_TRUE(circuit.admits(0));
  circuit.sent(0);
  circuit.succeeded();
  fail(circuit, 0, Failure::kSoft, Circuit::kFailuresInRow - 1);
  EXPECT_TRUE(circuit.admits(0));
  fail(circuit, 0, Failure::kSoft);
  EXPECT_FALSE(circuit.admits(0));
}

TEST(CircuitTest, AHardFailureOpensItAtOnceAndOneProbeDecides) {
  Circuit circuit;
  fail(circuit, 100, Failure::kHard);
  EXPECT_FALSE(circuit.admits(100 + Circuit::kOpenMs - 1));
  std::int64_t now_ms = 100 + Circuit::kOpenMs;
  EXPECT_TRUE(circuit.admits(now_ms));
  circuit.sent(now_ms);
  EXPECT_FALSE(circuit.admits(now_ms)) << "a second one while the probe is under way";
  circuit.failed(now_ms, Failure::kSoft);
  EXPECT_FALSE(circuit.admits(now_ms + 2 * Circuit::kOpenMs - 1)) << "the wait doubles";
  now_ms += 2 * Circuit::kOpenMs;
  EXPECT_TRUE(circuit.admits(now_ms));
  circuit.sent(now_ms);
  circuit.gave_up();
  EXPECT_TRUE(circuit.admits(now_ms)) << "a probe that told nothing lets another one pass";
  circuit.sent(now_ms);
  circuit.succeeded();
  EXPECT_EQ(circuit.state(now_ms), Circuit::State::kClosed);
}

TEST(CircuitTest, TheWaitHasABoundAndLateFailuresDoNotLengthenIt) {
  Circuit circuit;
  std::int64_t now_ms = 0;
  for (int i = 0; i < 10; ++i) {
    fail(circuit, now_ms, Failure::kHard);
    fail(circuit, now_ms + 1, Failure::kHard, 3);
    EXPECT_TRUE(circuit.admits(now_ms + Circuit::kOpenMsMax));
    now_ms += Circuit::kOpenMsMax;
  }
}

}  // namespace
}  // namespace capstan::routing

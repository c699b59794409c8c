// Goal: ranks find each other by MASTER_ADDR and MASTER_PORT alone, agree to the bit, and notice a dead peer.
// Method: ranks are threads of this process, except where one is killed: there it is a forked child.
#include "trainer/gang.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "trainer/rendezvous.h"

namespace capstan::trainer {
namespace {

// A port that was free a moment ago.
std::uint16_t free_port() {
  const auto server = RendezvousServer::start({"127.0.0.1", 0, "probe"}, 1);
  return server.value()->port();
}

GangConfig config_of(int rank, int size, std::uint16_t port) {
  return {.rank = rank,
          .size = size,
          .local_rank = rank,
          .master_address = "127.0.0.1",
          .master_port = port,
          .run = "test",
          .timeout_ms = 10'000};
}

TEST(RendezvousTest, AGetWaitsForTheSetOfAnotherClient) {
  const auto server = RendezvousServer::start({"127.0.0.1", 0, "run"}, 2).value();
  const RendezvousAddress address{"127.0.0.1", server->port(), "run"};
  std::string got;
  std::thread reader([&] { got = RendezvousClient::connect(address, 5000)->get("key").value_or("(none)"); });
  RendezvousClient writer = RendezvousClient::connect(address, 5000).value();
  EXPECT_EQ(writer.local_address().value(), "127.0.0.1");
  ASSERT_TRUE(writer.set("key", std::string("va\0lue", 6)));
  reader.join();
  EXPECT_EQ(got, std::string("va\0lue", 6));
}

TEST(RendezvousTest, ARankOfAnotherRunIsTurnedAway) {
  const auto server = RendezvousServer::start({"127.0.0.1", 0, "run/1"}, 2).value();
  RendezvousClient stranger = RendezvousClient::connect({"127.0.0.1", server->port(), "run/0"}, 1000).value();
  EXPECT_EQ(stranger.get("key").error().code, Code::kUnavailable);
}

TEST(RendezvousTest, AnAbsentServerAndAnAbsentKeyTimeOut) {
  EXPECT_EQ(RendezvousClient::connect({"127.0.0.1", free_port(), "run"}, 100).error().code, Code::kTimeout);
  const auto server = RendezvousServer::start({"127.0.0.1", 0, "run"}, 1).value();
  RendezvousClient client = RendezvousClient::connect({"127.0.0.1", server->port(), "run"}, 200).value();
  EXPECT_EQ(client.get("never").error().code, Code::kTimeout);
}

TEST(GangTest, ThreeRanksSumToTheSameBitsAndGatherInRankOrder) {
  constexpr int kRanks = 3;
  const std::uint16_t port = free_port();
  std::vector<std::vector<float>> sums(kRanks, std::vector<float>(10'001));
  std::vector<std::vector<double>> gathered(kRanks);
  std::vector<std::string> errors(kRanks);
  const auto rank_main = [&](int rank) {
    Result<std::unique_ptr<Gang>> gang = join_gang(config_of(rank, kRanks, port));
    if (!gang) {
      errors[static_cast<std::size_t>(rank)] = gang.error().message;
      return;
    }
    auto& values = sums[static_cast<std::size_t>(rank)];
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = 0.1f * static_cast<float>(rank + 1) + 1e-4f * static_cast<float>(i);
    EXPECT_TRUE((*gang)->sum(values));
    const double mine[2] = {rank * 1.0, rank + 0.5};
    gathered[static_cast<std::size_t>(rank)] = (*gang)->gather(mine).value();
    EXPECT_TRUE((*gang)->barrier());
    const std::uint8_t same = 7;
    EXPECT_TRUE((*gang)->agree("number", {&same, 1}));
    const std::uint8_t odd = rank == 2 ? 8 : 7;
    EXPECT_EQ((*gang)->agree("number", {&odd, 1}).error().message, "rank 2 has another number than rank 0");
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) threads.emplace_back(rank_main, rank);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(errors, std::vector<std::string>(kRanks));
  EXPECT_EQ(0, std::memcmp(sums[0].data(), sums[1].data(), sums[0].size() * sizeof(float)));
  EXPECT_EQ(0, std::memcmp(sums[0].data(), sums[2].data(), sums[0].size() * sizeof(float)));
  EXPECT_NEAR(sums[0][10'000], 0.6 + 3.0, 1e-5);
  EXPECT_EQ(gathered[1], (std::vector<double>{0, 0.5, 1, 1.5, 2, 2.5}));
}

TEST(GangTest, APeerThatIsKilledIsNoticedWithinSeconds) {
  const std::uint16_t port = free_port();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto gang = join_gang(config_of(1, 2, port));
    if (gang) ::pause();  // joined, then silent until killed
    ::_exit(1);
  }
  Result<std::unique_ptr<Gang>> gang = join_gang(config_of(0, 2, port));
  ASSERT_TRUE(gang) << gang.error().message;
  std::thread killer([child] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ::kill(child, SIGKILL);
  });
  const auto start = std::chrono::steady_clock::now();
  std::vector<float> values(1000, 1.0f);
  const Result<void> sum = (*gang)->sum(values);
  const auto waited = std::chrono::steady_clock::now() - start;
  killer.join();
  ::waitpid(child, nullptr, 0);
  ASSERT_FALSE(sum);
  EXPECT_EQ(sum.error().code, Code::kUnavailable);
  EXPECT_TRUE(sum.error().message.starts_with("rank 0 lost a peer while summing gradients"))
      << sum.error().message;
  EXPECT_LT(waited, std::chrono::seconds(5));  // the socket told us; the timeout is 10 s
}

TEST(GangTest, TheEnvironmentIsReadAndItsMistakesAreNamed) {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"})
    ::unsetenv(name);
  EXPECT_EQ(gang_from_environment()->size, 1);
  ::setenv("WORLD_SIZE", "2", 1);
  EXPECT_EQ(gang_from_environment().error().message,
            "RANK is not set, though the gang has more than one rank");
  ::setenv("RANK", "2", 1);
  EXPECT_EQ(gang_from_environment().error().message, "RANK='2' must be an integer from 0 to 1");
  ::setenv("RANK", "1", 1);
  EXPECT_EQ(gang_from_environment().error().message, "MASTER_ADDR is not set, though WORLD_SIZE is 2");
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  ::setenv("MASTER_PORT", "29500", 1);
  const GangConfig config = gang_from_environment().value();
  EXPECT_EQ(config.rank, 1);
  EXPECT_EQ(config.master_port, 29500);
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}) ::unsetenv(name);
}

}  // namespace
}  // namespace capstan::trainer

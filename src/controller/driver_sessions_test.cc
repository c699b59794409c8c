// Goal: what the driver owes to workers and learns from their silence, for many hosts at once. Method:
// sessions over a controller that is fed directly; the clock is a number.
#include "controller/driver_sessions.h"

#include <gtest/gtest.h>

#include "controller/controller.h"

namespace capstan::controller {
namespace {

class SessionsTest : public testing::Test {
 protected:
  // Feeds as the driver does, and passes effects on as if durable.
  void feed(decltype(Input::what) what) {
    const Outcome outcome = controller_.apply({1'000 + now_ms_, std::move(what)});
    effects_.insert(effects_.end(), outcome.effects.begin(), outcome.effects.end());
  }
  const State& state() const { return controller_.state(); }
  static std::string name(int i) { return fmt::format("h{:04}", i); }
  // A call; its answer is counted.
  void call(const std::string& host, bool with_list = false, std::int64_t effects_done = 0) {
    protocol::SyncRequest request;
    request.worker = host;
    request.incarnation = "i1";
    request.resources = {2'000, 1 << 20, 0};
    request.effects_done = effects_done;
    if (with_list) request.ranks.emplace();
    sessions_.take(
        state(), std::move(request),
        [this, host](Result<protocol::SyncAnswer> answer) {
          ++answers_;
          if (answer) last_[host] = *std::move(answer);
        },
        now_ms_, [this](decltype(Input::what) what) { feed(std::move(what)); });
  }
  void turn() {
    sessions_.detect(state(), now_ms_, [this](decltype(Input::what) what) { feed(std::move(what)); });
    sessions_.push(effects_);
    effects_.clear();
    sessions_.answer_due(state(), controller_.is_drained(), now_ms_);
  }
  void join(int hosts) {
    for (int i = 0; i < hosts; ++i) call(name(i));
    turn();
    for (int i = 0; i < hosts; ++i) call(name(i), true);
    turn();
  }
  int count(fleet::Health health) const {
    int found = 0;
    for (std::size_t i = 0; i < state().inventory.hosts(); ++i)
      found += state().inventory.host(static_cast<HostId>(i)).health == health;
    return found;
  }

  Controller controller_;
  Sessions sessions_{{.suspect_after_ms = 10'000, .lost_after_ms = 30'000, .long_poll_ms = 5'000}};
  std::vector<HostEffect> effects_;
  std::map<std::string, protocol::SyncAnswer> last_;
  int answers_ = 0;
  std::int64_t now_ms_ = 0;
};

TEST_F(SessionsTest, EachCallIsAnsweredWhenItsPollIsOverAndNotBefore) {
  join(3);  // each was told to send its list, and has
  EXPECT_EQ(answers_, 3);
  EXPECT_EQ(sessions_.next_deadline_ms(), 5'000);
  now_ms_ = 4'999;
  turn();
  EXPECT_EQ(answers_, 3);
  now_ms_ = 5'000;
  turn();
  EXPECT_EQ(answers_, 6);
  turn();
  EXPECT_EQ(answers_, 6);
  EXPECT_EQ(sessions_.next_deadline_ms(), 10'000);  // when somebody would be suspect
}

TEST_F(SessionsTest, ThousandsThatFallSilentAreDeclaredSoATurnAtATime) {
  join(1'500);
  now_ms_ = 10'000;
  turn();
  EXPECT_EQ(count(fleet::Health::kSuspect), static_cast<int>(kDetectedPerTurnMax));
  EXPECT_LE(sessions_.next_deadline_ms(), now_ms_);
  turn();
  EXPECT_EQ(count(fleet::Health::kSuspect), 1'500);
  call(name(7));
  EXPECT_EQ(count(fleet::Health::kSuspect), 1'499);
  now_ms_ = 30'000;
  turn();
  turn();
  EXPECT_EQ(count(fleet::Health::kLost), 1'499);
  EXPECT_EQ(count(fleet::Health::kSuspect), 1);
}

TEST_F(SessionsTest, APauseOfTheDriverIsNotTheWorkersSilence) {
  join(2);
  now_ms_ = 60'000;
  sessions_.forgive(55'000);
  turn();
  EXPECT_EQ(count(fleet::Health::kHealthy), 2);
  now_ms_ = 65'000;
  turn();
  EXPECT_EQ(count(fleet::Health::kSuspect), 2);
}

TEST_F(SessionsTest, WorkersThatTheStateKnowsAreExpectedToCallAgain) {
  join(3);
  sessions_.reset({Code::kUnavailable, "away", {}});
  sessions_.started(state(), now_ms_);
  now_ms_ = 9'999;
  call(name(1), true);
  turn();
  EXPECT_EQ(count(fleet::Health::kHealthy), 3);
  now_ms_ = 10'000;
  turn();
  EXPECT_EQ(count(fleet::Health::kSuspect), 2);
}

TEST_F(SessionsTest, EffectsAreRepeatedUntilTakenOverAndWhatIsOverIsNotSent) {
  join(1);
  const auto specs = *workload::parse_specs("{kind: tasks, name: t, count: 3, command: x}", {.source = "t"});
  feed(Apply{specs, false});
  turn();
  ASSERT_EQ(last_[name(0)].effects.size(), 2u);  // two CPUs
  EXPECT_EQ(last_[name(0)].effects.back().id, 2);
  call(name(0), false, 1);
  turn();
  ASSERT_EQ(last_[name(0)].effects.size(), 1u);
  EXPECT_EQ(last_[name(0)].effects.front().id, 2);
  // One more starts where one has ended; before the worker calls again, that one is over too.
  Reports ended;
  ended.host = name(0);
  protocol::RankExited exit;
  exit.exit_code = 0;
  for (const std::int64_t rank : {0, 1, 2}) {
    ended.reports = {{rank + 1, {1, 1, rank}, exit}};
    feed(ended);
  }
  turn();
  EXPECT_EQ(state().workloads.at(1).state, WorkloadState::kSucceeded);
  call(name(0), false, 2);
  now_ms_ += 5'000;
  turn();
  EXPECT_TRUE(last_[name(0)].effects.empty());
}

}  // namespace
}  // namespace capstan::controller

// Goal: whatever happens, in whatever order: no core is booked twice, no start is repeated, a gang's next
// attempt never meets its last one, every accepted command shows, and replay (whole, or snapshot and tail)
// gives the same state. Method: random commands, reports, losses and restarts against simulated workers that
// follow the wire's rules; after each sequence the world calms down and everything must come to its end.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/prng.h"
#include "controller/controller.h"
#include "controller/effects.h"

namespace capstan::controller {
namespace {

struct SimulatedRank {
  protocol::RankPhase phase = protocol::RankPhase::kStarting;
  bool stop_asked = false;
  protocol::Report end;
};

// A worker: keeps every rank's record until it is told to forget it, as the real one does.
struct Worker {
  std::string name;
  int incarnation = 1;
  std::int64_t milli_cpus = 0;
  bool cut_off = false;  // unreachable
  bool synced = false;
  std::map<RankId, SimulatedRank> ranks;
  std::vector<protocol::Effect> queue;  // effects on their way
};

class World {
 public:
  explicit World(std::uint64_t seed) : prng_(seed) {
    apply(BeginEpoch{1, "b"});
    const std::int64_t hosts = prng_.between(1, 3);
    for (std::int64_t i = 0; i < hosts; ++i) {
      Worker worker;
      worker.name = "h" + std::to_string(i);
      worker.milli_cpus = prng_.between(1, 4) * 1000;
      workers_[worker.name] = worker;
    }
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      step();
      check();
      if (prng_.below(16) == 0) check_replay();
    }
    calm_down();
    check_replay();
  }

 private:
  void step() {
    time_ms_ += static_cast<std::int64_t>(prng_.below(2'000));
    switch (prng_.below(12)) {
      case 0:
      case 1:
        return submit();
      case 2:
        return cancel();
      case 3:
        return apply(Tick{});
      case 4:
        return restart_worker();
      case 5:
        return cut_or_heal();
      case 6:
        return restart_controller();
      default:
        return talk();
    }
  }

  std::string random_spec(const std::string& name) {
    const auto cpus = std::to_string(prng_.between(1, 2));
    const auto command = std::string(1, static_cast<char>('x' + prng_.below(2)));
    const std::string head = "{name: " + name + ", command: " + command + ", resources: {cpus: " + cpus +
                             "}, priority: " + std::to_string(prng_.between(0, 2)) + ", ";
    switch (prng_.below(3)) {
      case 0:
        return head + fmt::format("kind: job, ranks: {}, restarts: {{budget: {}, backoff: 1s}}}}",
                                  prng_.between(1, 4), prng_.between(0, 2));
      case 1:
        return head +
               fmt::format("kind: service, replicas: {}, restarts: {{backoff: 1s}}}}", prng_.between(1, 3));
      default:
        return head +
               fmt::format("kind: tasks, count: {}, retries: {}}}", prng_.between(1, 9), prng_.between(0, 2));
    }
  }

  void submit() {
    const std::string name(1, static_cast<char>('a' + prng_.below(5)));
    const auto specs = workload::parse_specs(random_spec(name), {.source = "t", .base_directory = "/"});
    ASSERT_TRUE(specs) << specs.error()[0].text();
    const Outcome outcome = take(Apply{*specs, false});
    if (!outcome.answer) return;
    const Workload* workload = state().find(name);
    ASSERT_NE(workload, nullptr);
    ASSERT_EQ(workload->spec, specs->front());  // accepted: it shows
    ++accepted;
  }

  void cancel() {
    const std::string name(1, static_cast<char>('a' + prng_.below(5)));
    const Outcome outcome = take(Cancel{name});
    ASSERT_TRUE(!outcome.answer || state().find(name)->cancelling);
  }

  // ---- workers
  Worker& random_worker() {
    return std::next(workers_.begin(), static_cast<std::ptrdiff_t>(prng_.below(workers_.size())))->second;
  }

  void restart_worker() {
    Worker& worker = random_worker();
    ++worker.incarnation;
    worker.synced = false;
    worker.queue.clear();
  }

  void cut_or_heal() {
    Worker& worker = random_worker();
    worker.cut_off = !worker.cut_off;
    if (worker.cut_off && prng_.below(2) == 0) {
      apply(SetHealth{worker.name, fleet::Health::kSuspect});
      apply(SetHealth{worker.name, fleet::Health::kLost});
      worker.synced = false;
      worker.queue.clear();
    }
  }

  // A new controller process: what is durable, and nothing else.
  void restart_controller() {
    controller_ = replayed(rows_.size());
    for (auto& [name, worker] : workers_) {
      worker.synced = false;
      worker.queue.clear();
    }
    apply(BeginEpoch{state().epoch + 1, "b"});
  }

  // One sync of one worker.
  void talk() {
    Worker& worker = random_worker();
    if (worker.cut_off) return;
    sync(worker, false);
  }

  void sync(Worker& worker, bool calm) {
    apply(JoinHost{worker.name, std::to_string(worker.incarnation), "b", "", {worker.milli_cpus, 0, 0}, {}});
    if (!worker.synced) {
      std::vector<protocol::RankStatus> list;
      for (const auto& [id, rank] : worker.ranks) list.push_back({id, rank.phase});
      Reconciliation agreed = reconcile(state(), worker.name, list);
      worker.queue = std::move(agreed.effects);
      worker.synced = true;
      if (!agreed.lost.empty()) apply(Reports{worker.name, agreed.lost, {}});
    }
    for (const auto& effect : std::exchange(worker.queue, {})) perform(worker, effect);
    progress(worker, calm);
    const bool clean = std::ranges::all_of(worker.ranks, [&](const auto& entry) {
      const auto known = state().inventory.topology().find(worker.name);
      const auto ranks = known ? state().ranks_on(*known) : std::vector<RankId>{};
      return entry.second.phase == protocol::RankPhase::kExited ||
             std::binary_search(ranks.begin(), ranks.end(), entry.first);
    });
    if (clean) apply(SetHealth{worker.name, fleet::Health::kHealthy});
  }

  void perform(Worker& worker, const protocol::Effect& effect) {
    const RankId id = effect.rank;
    const auto at = worker.ranks.find(id);
    if (std::holds_alternative<protocol::ForgetRank>(effect.body)) {
      if (at != worker.ranks.end()) worker.ranks.erase(at);
    } else if (std::holds_alternative<protocol::StopRank>(effect.body)) {
      if (at != worker.ranks.end()) {
        at->second.stop_asked = true;
        return;
      }
      protocol::RankExited exit;
      exit.lost = exit.stopped = true;
      apply(Reports{worker.name, {{1, id, exit}}, {}});
    } else if (at == worker.ranks.end()) {
      ASSERT_TRUE(ever_started_.insert(id).second) << "started twice: " << id.text();
      for (const auto& [name, other] : workers_) {
        for (const auto& [known, rank] : other.ranks) {
          // What runs on a host that was declared lost cannot be known before the host is back.
          if (health_of(name) == fleet::Health::kLost) continue;
          if (known.job != id.job || rank.phase == protocol::RankPhase::kExited) continue;
          const Workload* workload = state().find(id.job);
          if (workload == nullptr || workload->spec.kind != workload::Kind::kJob) continue;
          ASSERT_EQ(known.attempt, id.attempt) << "two attempts of one gang at once";
        }
      }
      worker.ranks[id] = {};
      ++started;
    }
  }

  // Its ranks get on: start, end well or badly, end because they were asked to; what ended is reported, then
  // forgotten.
  void progress(Worker& worker, bool calm) {
    std::vector<protocol::Report> reports;
    for (auto& [id, rank] : worker.ranks) {
      const std::uint64_t dice = prng_.below(6);
      if (rank.phase == protocol::RankPhase::kStarting && dice < 4) {
        rank.phase = protocol::RankPhase::kRunning;
        reports.push_back({1, id, protocol::RankStarted{1, 0}});
      }
      const Workload* workload = state().find(id.job);
      const bool serves =
          workload != nullptr && workload->spec.kind == workload::Kind::kService && !workload->cancelling;
      if (rank.phase != protocol::RankPhase::kExited && (rank.stop_asked || (calm ? !serves : dice == 5))) {
        protocol::RankExited exit;
        exit.exit_code = rank.stop_asked ? 75 : calm ? 0 : static_cast<std::int64_t>(prng_.below(2));
        exit.stopped = rank.stop_asked;
        rank.end = {1, id, exit};
        if (!calm && prng_.below(8) == 0) rank.end = {1, id, protocol::RankStartFailed{"busy", true}};
        rank.phase = protocol::RankPhase::kExited;
      }
      if (rank.phase == protocol::RankPhase::kExited) reports.push_back(rank.end);
    }
    if (!reports.empty()) apply(Reports{worker.name, reports, {}});
    if (prng_.below(4) == 0 && !reports.empty())
      apply(Reports{worker.name, reports, {}});  // told again: nothing new
    std::erase_if(worker.ranks,
                  [](const auto& entry) { return entry.second.phase == protocol::RankPhase::kExited; });
  }

  // ---- the journal
  struct Row {
    std::int64_t time_ms;
    std::vector<Json> events;
  };
  void apply(decltype(Input::what) what) { (void)take(std::move(what)); }

  Outcome take(decltype(Input::what) what) {
    Outcome outcome = controller_.apply({time_ms_, std::move(what)});
    if (!outcome.events.empty()) rows_.push_back({outcome.time_ms, outcome.events});
    for (auto& one : outcome.effects) {
      Worker& worker = workers_.at(state().name(one.host));
      if (!worker.synced) continue;
      for (auto& effect : render(state(), one)) worker.queue.push_back(std::move(effect));
    }
    return outcome;
  }

  Controller replayed(std::size_t rows, std::size_t from = 0, Controller controller = {}) {
    for (std::size_t i = from; i < rows; ++i) {
      for (const Json& event : rows_[i].events) {
        const auto folded = controller.replay(rows_[i].time_ms, *Json::parse(event.dump()));
        EXPECT_TRUE(folded) << folded.error().message;
      }
    }
    return controller;
  }

  void check_replay() {
    ASSERT_EQ(replayed(rows_.size()).state_hash(), controller_.state_hash());
    const std::size_t cut = prng_.below(rows_.size() + 1);
    std::string text;
    replayed(cut).write_snapshot([&](std::string_view piece) { text += piece; });
    auto half = Controller::from_snapshot_text(text);
    ASSERT_TRUE(half) << half.error().message;
    ASSERT_EQ(replayed(rows_.size(), cut, *std::move(half)).state_hash(), controller_.state_hash());
  }

  fleet::Health health_of(const std::string& name) const {
    return state().inventory.host(*state().inventory.topology().find(name)).health;
  }

  // ---- invariants
  void check() {
    for (std::uint32_t i = 0; i < state().inventory.hosts(); ++i) {
      ASSERT_GE(state().inventory.room(HostId{i}).milli_cpus, 0) << state().name(HostId{i}) << " is booked twice";
    }
    std::int64_t live = 0;
    for (const auto& [id, workload] : state().workloads) {
      const Job& job = workload.job;
      live += job.live + workload.tasks.running;
      for (const auto& [index, replica] : workload.service.replicas) live += replica.rank.live();
      ASSERT_TRUE(!has_ended(workload.state) || job.live == 0);
      if (job.in_attempt && job.stopping == StopWhy::kNone &&
          job.live == static_cast<std::int64_t>(job.ranks.size())) {
        std::int64_t placed = 0;
        for (const auto& slice : job.slices) placed += slice.ranks;
        ASSERT_EQ(placed, static_cast<std::int64_t>(job.ranks.size())) << "a gang is placed whole";
      }
      if (workload.spec.kind == workload::Kind::kTasks) {
        const Tasks& tasks = workload.tasks;
        ASSERT_EQ(tasks.pending.size() + tasks.succeeded.size() + tasks.failed.size() +
                      tasks.running +
                      static_cast<std::int64_t>(tasks.waiting.size()),
                  workload.spec.count);
      }
    }
    ASSERT_EQ(live, state().live_ranks);
  }

  // All workers answer, all ranks end well, time passes: every job and array must end, every service serve,
  // if it fits.
  void calm_down() {
    for (auto& [name, worker] : workers_) worker.cut_off = false;
    for (int round = 0; round < 400; ++round) {
      time_ms_ += 5'000;
      apply(Tick{});
      for (auto& [name, worker] : workers_) sync(worker, true);
      if (round == 200) {
        for (const auto& [name, id] : std::map(state().by_name)) apply(Cancel{name});
      }
      if (testing::Test::HasFatalFailure()) return;
      check();
    }
    for (const auto& [id, workload] : state().workloads) {
      ASSERT_TRUE(has_ended(workload.state)) << workload.spec.name << " is " << state_name(workload.state);
    }
    ASSERT_EQ(state().live_ranks, 0);
    for (const auto& [name, worker] : workers_) ASSERT_TRUE(worker.ranks.empty()) << "an orphan on " << name;
  }

  const State& state() const { return controller_.state(); }

  Prng prng_;
  Controller controller_;
  std::int64_t time_ms_ = 1'000;
  std::map<std::string, Worker> workers_;
  std::set<RankId> ever_started_;
  std::vector<Row> rows_;

 public:
  int accepted = 0;
  int started = 0;
};

TEST(ControllerProperty, RandomLivesKeepTheInvariants) {
  int accepted = 0, started = 0;
  for (std::uint64_t seed = 1; seed <= 500; ++seed) {
    World world(seed);
    world.run(60);
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "seed " << seed;
    accepted += world.accepted;
    started += world.started;
  }
  // The sequences are worth something.
  EXPECT_GT(accepted, 1'000);
  EXPECT_GT(started, 3'000);
}

}  // namespace
}  // namespace capstan::controller

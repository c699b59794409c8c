// World: the production controller on a fleet that does not exist: a virtual clock, hosts that do what they are told, work
// that lasts as long as its behaviour says, faults that strike.
//
//   World world(std::move(setup));
//   while (!world.done()) { world.advance(10'000); show(world.now_ms(), world.inputs()); }
//   Results results = world.results();
//
// The controller is the same code as in production, fed with the same inputs: commands, reports of hosts, health from a
// failure detector (whose verdict is drawn here, with its delay), ticks when it asks for them. Hosts answer as workers do: a
// report for each host and moment. Everything follows from the setup: equal setups give equal hashes.
//
// How long work lasts. A gang's attempt has three parts: start_ms (and restart_ms when it is not the first), then work with a
// stall for every checkpoint, until what was left is done; on fewer ranks than it asked for (elastic) it takes
// proportionally longer, and where its behaviour names a model, so much longer as its step takes on this placement than on
// the best one (training_model.h). When it is stopped gracefully and checkpoints, it goes on later from there; when it fails,
// from its last checkpoint; without checkpoints, from the beginning. Tasks begin again from nothing. A rank on a dead host
// keeps its gang hanging until the fault is detected.
//
// Cost: an input costs what the controller takes for it, and about a microsecond here. Memory: 48 bytes a pending moment (one
// a running task range), about 300 a workload that has not ended.
// Threads: one owner.  Failure: the constructor's caller checks the setup with `check`; a refused arrival is counted and noted.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/prng.h"
#include "controller/controller.h"
#include "sim/arrivals.h"
#include "sim/faults.h"
#include "sim/results.h"

namespace capstan::sim {

inline constexpr std::int64_t kBeginMs = 1'700'000'000'000;  // of every simulation's clock

struct Setup {
  std::string name;
  std::string variant;
  std::uint64_t seed = 1;
  std::int64_t duration_ms = 0;
  std::int64_t sample_ms = 0;  // between two points of the curves; 0: about 1,000 in all
  fleet::FleetSpec fleet;
  std::vector<workload::Tenant> tenants;
  std::string order;                // as of SetPolicy; empty: the default
  std::int64_t starvation_ms = -1;  // the same
  std::unique_ptr<ArrivalSource> arrivals;
  // Made when the fleet is there; nullptr: nothing breaks.
  std::function<std::unique_ptr<FaultSource>(const fleet::Topology&, const Setup&)> make_faults = {};
  // After the last arrival nothing is waited for longer than this; 0: the run ends at duration_ms.
  bool until_idle = false;
  std::vector<std::string> notes;
};

class Books;

class World {
 public:
  explicit World(Setup setup);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // So many moments, or until it is over.
  void advance(std::int64_t moments);
  // How far the clock may go; also what a progress bar counts to.
  std::int64_t duration_ms() const { return setup_.duration_ms; }
  bool done() const { return done_; }
  std::int64_t now_ms() const { return now_ms_ - kBeginMs; }
  std::int64_t inputs() const { return inputs_; }
  const controller::Controller& controller() const { return controller_; }
  // What the fleet or the tenants were refused for; empty: nothing.
  const std::string& refused() const { return refused_; }

  Results results();

 private:
  enum class What : std::uint8_t {
    kStarted,   // ranks of a gang or service run
    kEnds,      // a gang's work is done
    kStopped,   // ranks that were asked to stop have stopped
    kTasksEnd,  // tasks of a range are done
    kWithdraw,
    kDetected,  // a fault is noticed
    kRepaired,
    kSample,
  };
  struct Moment {
    std::int64_t time_ms = 0;
    std::uint64_t number = 0;  // of equals the one made first comes first
    std::int64_t job = 0;      // or which fault
    std::int64_t first = 0;    // of a task range; of a gang: which run
    std::int32_t count = 0;
    std::int32_t attempt = 0;
    std::uint32_t host = 0;
    std::uint32_t life = 0;  // of the host when the range started
    What what{};
  };
  // The order of the heap: the earliest on top.
  static bool later(const Moment& a, const Moment& b);
  struct Part {
    fleet::HostId host{};
    std::int64_t first = 0;
    std::int64_t count = 0;
  };
  // One attempt of a gang or of a replica.
  struct Run {
    std::int64_t attempt = 0;
    std::int64_t serial = 0;  // 0: none
    std::int64_t began_ms = 0;
    std::int64_t work_from_ms = 0;  // when the first step begins
    bool dead = false;              // a fault ended its work; it is still there until that is noticed
    std::int64_t hangs_from_ms = -1;  // since then
    bool stopping = false;
    std::int64_t pace_milli = 1'000;  // what work takes here, over what it would on the best placement
    std::vector<Part> parts = {};
  };
  struct Plan {
    Behaviour behaviour;
    std::string name;
    std::uint32_t kind = 0;
    std::uint32_t tenant = 0;
    workload::Kind is = workload::Kind::kJob;
    std::int64_t arrived_ms = 0;
    std::int64_t first_start_ms = -1;
    std::int64_t left_ms = 0;  // of the work, on all ranks it asked for
    std::int64_t ranks = 0;
    std::int64_t gpus_each = 0;
    std::int64_t checkpoint_ms = 0;
    std::int64_t grace_ms = 0;
    std::int64_t attempts = 0;
    Run run;                          // of a gang
    std::map<std::int64_t, Run> replicas;
  };

  controller::Outcome apply(decltype(controller::Input::what) what);
  void take_events(const controller::Outcome& outcome);
  void take_effects(const controller::Outcome& outcome);
  void start(const controller::HostEffect& effect, Plan& plan);
  void start_tasks(const controller::HostEffect& effect, Plan& plan);
  void note_first_start(Plan& plan);
  Moment moment_of(const controller::HostEffect& effect) const;
  void start_replica(const controller::HostEffect& effect, Plan& plan);
  void stop(const controller::HostEffect& effect, Plan& plan);
  void happen(const Moment& moment);
  void arrive();
  void started(const Moment& moment);
  void ends(const Moment& moment);
  void stopped(const Moment& moment);
  void tasks_end(const Moment& moment);
  void strike();
  void strike_host(fleet::HostId host);
  void hang(Plan& plan);
  void strike_process(const Fault& fault);
  void detected(const Moment& moment);
  void repaired(const Moment& moment);
  void sample();
  void close_run(Plan& plan, Run& run, bool graceful);
  void end_plan(std::int64_t job, bool well);
  Plan* plan_of(std::int64_t job);
  void push(What what, std::int64_t time_ms, Moment moment);
  std::int64_t pace_of(const Plan& plan, const Run& run) const;
  void report_ends(std::int64_t job, const Run& run, bool asked, std::int64_t exit_code);
  const std::string& name(fleet::HostId host) const { return controller_.state().name(host); }

  Setup setup_;
  controller::Controller controller_;
  std::int64_t now_ms_ = kBeginMs;
  std::int64_t end_ms_ = 0;
  bool done_ = false;
  std::string refused_;
  std::vector<Moment> moments_;  // a heap
  std::uint64_t moments_made_ = 0;
  std::int64_t runs_made_ = 0;
  std::optional<Arrival> arrival_;
  std::unique_ptr<FaultSource> faults_;
  std::optional<Fault> fault_;
  std::vector<std::unique_ptr<Plan>> plans_;       // by id of the workload
  std::int64_t plans_live_ = 0;
  std::vector<std::uint32_t> lives_;               // of each host: how often it has died
  std::vector<std::uint8_t> down_;                 // of each host: faults that hold it down
  std::map<std::int64_t, Fault> struck_;           // that are not repaired
  std::int64_t struck_made_ = 0;
  std::vector<controller::HostEffect> effects_;    // of the inputs since hosts last acted
  std::string text_;
  Fingerprint hash_;
  std::int64_t inputs_ = 0;
  std::int64_t events_ = 0;
  std::unique_ptr<Books> books_;
};

}  // namespace capstan::sim

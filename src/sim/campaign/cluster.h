// Cluster: the production controller, its sessions and its journal's contract on simulated disks, networks
// and hosts, for fault campaigns. One seed, one history.
//
//   Cluster cluster(plan_of(seed));
//   const Verdict verdict = cluster.run();
//   if (!verdict.failure.empty()) …
//
// What is real: Controller (decisions, snapshots, replay), Sessions (the driver's side of the wire: sequence
// numbers, effects, full lists, the failure detector), every message. What is simulated: the disk (a batch is
// durable when its fsync has returned; a crash in between keeps all of it or nothing, and a torn row is cut
// off), the network (delay, loss, duplicates, reordering, partitions), workers with shims (a worker process
// may die while its ranks live on; a host that dies takes them along), and both clocks of the controller. The
// books of the checks are kept from what hosts do and what was acknowledged, not from the state.
//
// Time goes in steps of kStepMs.  Cost: about 100 ms of a core a history.  Threads: one owner.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/prng.h"
#include "controller/controller.h"
#include "controller/driver_sessions.h"

namespace capstan::sim::campaign {

inline constexpr std::int64_t kStepMs = 200;
inline constexpr std::int64_t kFaultsMs = 900'000;       // faults strike and work arrives for so long
inline constexpr std::int64_t kQuietMs = 5 * 3'600'000;  // then everything must end within this

// One thing that happens; plans are lists of these, so that a failing one can be made smaller.
struct Op {
  enum class Kind : std::uint8_t {
    kSubmit,
    kCancel,
    kVerb,        // cordon, drain, return of a host
    kKillRank,    // a process dies
    kKillWorker,  // the worker's process; ranks live on
    kKillHost,    // it reboots: ranks are gone
    kPartition,   // a host, or all of them, cannot reach the controller
    kKillController,
    kTearBatch,    // the controller dies while a batch is being written
    kSlowNetwork,  // loss, duplicates, long delays for a while
    kSlowHost,     // answers late
    kJumpClock,    // the controller's wall clock
    kSnapshot,
    kFlap,       // a host comes and goes
    kSilentGpu,  // an operator declares a GPU broken
  };
  std::int64_t at_ms = 0;
  Kind kind = Kind::kSubmit;
  std::uint64_t draw = 0;  // whatever it needs to choose
};
struct Plan {
  std::uint64_t seed = 0;
  std::vector<Op> ops;  // in order of time
};
Plan plan_of(std::uint64_t seed);
std::string_view op_name(Op::Kind kind);

using Probes = std::map<std::string, std::int64_t, std::less<>>;

struct Verdict {
  std::string failure;  // empty: all well
  std::int64_t at_ms = 0;
  std::string state_hash;
  Probes probes;
  std::vector<std::string> history;  // the last moments before a failure
};

class Cluster {
 public:
  // `acknowledges_early`: a planted bug, answers and effects leave before they are durable.
  explicit Cluster(Plan plan, bool acknowledges_early = false);
  ~Cluster();
  Verdict run();

 private:
  struct SimRank {
    protocol::RankPhase phase = protocol::RankPhase::kStarting;
    std::set<int> gpus;
    std::int64_t starts_ms = 0;
    std::int64_t ends_ms = 0;
    std::int64_t stop_ms = -1;
    int exit_code = 0;
    bool service = false;
  };
  struct Host {
    std::string name;
    fleet::Capacity capacity;
    std::string incarnation;
    std::int64_t incarnations = 0;
    bool up = true;
    std::int64_t back_ms = 0;         // when it is up again
    std::int64_t worker_back_ms = 0;  // its worker's process is not there before
    std::int64_t cut_until_ms = 0;
    std::int64_t slow_until_ms = 0;
    std::map<protocol::RankId, SimRank> ranks;
    std::deque<protocol::Report> outbox;
    std::int64_t seq = 0;
    std::int64_t effects_done = 0;
    std::int64_t epoch_seen = 0;
    bool full = true;
    std::int64_t call = 0;  // number of the call that is out; 0: none
    std::int64_t call_ms = 0;
  };
  struct Message {
    std::int64_t at_ms = 0;
    std::int64_t number = 0;
    std::size_t host = 0;
    std::int64_t call = 0;
    bool to_controller = true;
    std::shared_ptr<const protocol::SyncRequest> request;  // shared by a message and its duplicate
    std::shared_ptr<const Result<protocol::SyncAnswer>> answer;
  };
  struct Row {
    std::int64_t time_ms = 0;
    std::vector<std::string> events;
  };
  struct Promise {
    std::string name;
    bool cancel = false;
  };

  void act(const Op& op);
  void submit(std::uint64_t draw);
  void step();
  void step_host(std::size_t at);
  void call(std::size_t at);
  void take_answer(std::size_t at, const Message& message);
  void do_effect(Host& host, const protocol::Effect& effect);
  void start_rank(Host& host, const protocol::RankId& id, const protocol::StartRank& start);
  void end_rank(Host& host, const protocol::RankId& id, SimRank& rank, int code, bool stopped, bool lost);
  void say(Host& host, const protocol::RankId& id, decltype(protocol::Report::body) body);
  void deliver();
  void send(Message message);
  void turn();
  void commit();
  Result<Json> feed(decltype(controller::Input::what) what);
  void check_events(const controller::Outcome& outcome);
  void crash(bool batch_survives);
  void recover();
  void check_hosts();
  void check_promises();
  bool all_ended() const;
  void fail(std::string why);
  void note(std::string text);
  void hit(std::string_view probe) { ++probes_[std::string(probe)]; }
  std::int64_t unix_ms() const { return 1'700'000'000'000 + now_ms_ + jump_ms_; }

  Plan plan_;
  bool early_ = false;
  Prng net_;
  std::int64_t now_ms_ = 0;
  std::int64_t jump_ms_ = 0;
  std::unique_ptr<controller::Controller> controller_;  // null: it is down
  std::unique_ptr<controller::Sessions> sessions_;
  std::int64_t back_ms_ = 0;
  bool tear_next_ = false;  // dies in the next batch that has rows
  std::vector<controller::HostEffect> effects_;
  std::vector<Row> batch_, disk_;
  std::string snapshot_;
  std::size_t snapshot_rows_ = 0;
  std::vector<Promise> answered_, promised_;  // of the batch; acknowledged
  std::vector<Host> hosts_;
  std::vector<Message> messages_;
  std::int64_t messages_made_ = 0, calls_made_ = 0, works_made_ = 0;
  std::int64_t bad_net_until_ms_ = 0;
  std::map<std::string, std::string> tenant_of_;
  std::map<std::string, std::int64_t> ranks_of_, least_of_;
  std::set<protocol::RankId> started_;
  Probes probes_;
  std::string failure_;
  std::deque<std::string> history_;
};

}  // namespace capstan::sim::campaign

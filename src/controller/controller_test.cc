// Goal: the lives of jobs, services, tasks and hosts, legal and illegal steps alike.
// Method: scripts (script_testing.h).
#include "controller/script_testing.h"

namespace capstan::controller {
namespace {

TEST(Controller, AGangStartsRunsAndSucceedsTogether) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, ranks: 2, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0 +start:1-1-1
    started a/0 -> rank_started:0
    started a/0 -> nothing
    started a/1 -> rank_started:1 workload_state:running
    exit a/0 0 -> rank_ended:0
    exit a/1 0 -> rank_ended:1 attempt_ended:succeeded workload_state:succeeded
    exit a/1 0 -> nothing
    cancel a -> refused: job a has already ended: succeeded
    cancel b -> refused: there is no workload b; see: capstan get
  )");
}

TEST(Controller, OneBadRankRestartsTheGangUntilTheBudgetIsUsed) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, ranks: 2, command: x, restarts: {budget: 1, backoff: 1s}}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0 +start:1-1-1
    exit a/1 3 -> rank_ended:1 attempt_stopping:failure workload_state:stopping +stop:1-1-0
    exit a/0 0 stopped -> rank_ended:0 attempt_ended:restart workload_state:restarting
    wait 999 -> nothing
    wait 1 -> attempt_began workload_state:starting +start:1-2-0 +start:1-2-1
    exit a/0 1 -> rank_ended:0 attempt_stopping:failure workload_state:stopping +stop:1-2-1
    exit a/1 75 stopped -> rank_ended:1 attempt_ended:failed workload_state:failed
    show a -> failed 0/2 rank 0 exited with code 1; the restart budget of 1 is used up
  )");
}

TEST(Controller, OrderIsPriorityThenSubmissionAndWaitingIsExplained) {
  check_script(R"(
    apply {kind: job, name: early, command: x} -> workload_submitted
    explain early -> job early is pending (0 of 1 ranks running) | not now: no host has joined yet
    apply {kind: job, name: late, priority: 1, command: x} -> workload_submitted
    host h1 1 -> host_joined attempt_began workload_state:starting +start:2-1-0
  )");
}

TEST(Controller, WhatWaitsStartsWhenRoomGrows) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    apply {kind: job, name: big, ranks: 2, command: x} -> workload_submitted
    show big -> pending 0/2 not now: needs 2 cpus, 1 is free; job a holds 1;
      & it would start now with 1 rank or if job a stopped
    apply {kind: job, name: huge, ranks: 3, command: x} -> workload_submitted
    show huge -> pending 0/3 never: 3 ranks need 3 cpus, all hosts together have 2: room for 2 at most;
      & it would start now with 1 rank
    apply {kind: job, name: next, ranks: 2, command: x} -> workload_submitted
    exit a/0 0
      -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded attempt_began
      & workload_state:starting +start:2-1-0 +start:2-1-1
    cancel next -> workload_cancelling workload_state:cancelled
  )");
}

TEST(Controller, HigherPriorityDisplacesLowerAndWhatGaveWayResumes) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, ranks: 2, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0 +start:1-1-1
    apply {kind: job, name: urgent, ranks: 2, priority: 5, command: x}
      -> workload_submitted claim_added attempt_stopping:preempted workload_state:stopping +stop:1-1-0 +stop:1-1-1
    show urgent -> pending 0/2 not now: 1 host is kept for it, not free yet: job a gives way;
      & needs 2 cpus, 0 are free; job a holds 2; expected to start at 00:00:31 UTC when job a ends
    apply {kind: job, name: small, priority: 1, command: x} -> workload_submitted
    exit a/0 75 stopped -> rank_ended:0
    exit a/1 75 stopped
      -> rank_ended:1 attempt_ended:resume attempt_began workload_state:pending workload_state:starting
      & +start:2-1-0 +start:2-1-1
    exit urgent/0 0 -> rank_ended:0 workload_state:running
    exit urgent/1 0
      -> rank_ended:1 attempt_ended:succeeded workload_state:succeeded attempt_began workload_state:starting
      & +start:3-1-0
    exit small/0 0
      -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded attempt_began workload_state:starting
      & +start:1-2-0 +start:1-2-1
  )");
}

TEST(Controller, CancelStopsGracefullyThenIsOver) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    cancel a -> workload_cancelling attempt_stopping:cancel workload_state:stopping +stop:1-1-0
    cancel a -> nothing
    apply {kind: job, name: a, command: y}
      -> refused: job a is being cancelled; apply it again once it has ended
    exit a/0 75 stopped -> rank_ended:0 attempt_ended:cancelled workload_state:cancelled
    apply {kind: job, name: a, command: y}
      -> workload_submitted attempt_began workload_state:starting +start:2-1-0
  )");
}

TEST(Controller, AChangedJobRestartsWithoutUsingItsBudget) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    apply {kind: job, name: a, command: x} -> nothing
    apply {kind: job, name: a, command: x, priority: 3} -> workload_updated
    apply {kind: job, name: a, command: y, priority: 3}
      -> workload_updated attempt_stopping:update workload_state:stopping +stop:1-1-0
    exit a/0 75 stopped
      -> rank_ended:0 attempt_ended:resume attempt_began workload_state:starting +start:1-2-0
    apply {kind: service, name: a, command: y, port: 9}
      -> refused: a is the name of a job that has not ended; cancel it first, or choose another name
  )");
}

TEST(Controller, DownStopsEverythingAndTheNextEpochResumesIt) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 -> rank_started:0 workload_state:running
    drain -> drain_began attempt_stopping:down workload_state:stopping +stop:1-1-0
    apply {kind: job, name: b, command: x}
      -> refused: Capstan is going down; apply again after the next `capstan up`
    exit a/0 0 stopped -> rank_ended:0 attempt_ended:resume workload_state:pending
    epoch -> epoch_began attempt_began workload_state:starting +start:1-2-0
  )");
}

TEST(Controller, ALostHostsGangStartsElsewhere) {
  check_script(R"(
    host h1 2 -> host_joined
    host h2 2 -> host_joined
    apply {kind: job, name: a, ranks: 3, command: x, restarts: {backoff: 1s}}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0 +start:1-1-1 +start:1-1-2
    suspect h1 -> host_health:suspect
    lost h1
      -> host_health:lost rank_ended:0 attempt_stopping:failure rank_ended:1 workload_state:stopping
      & +stop:1-1-1 +stop:1-1-2
    exit a/2 0 stopped -> rank_ended:2 attempt_ended:restart workload_state:restarting
    wait 1000 -> nothing
    show a -> restarting 0/3 rank 0 was lost: its host h1 is lost
    back h1
      -> host_health:healthy attempt_began workload_state:starting +start:1-2-0 +start:1-2-1 +start:1-2-2
  )");
}

TEST(Controller, AnImpossibleStartFailsAtOnceAndABusyPortIsTriedAgain) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    unstartable a/0 no-such-user
      -> rank_ended:0 attempt_stopping:failure attempt_ended:failed workload_state:failed
    show a -> failed 0/1 rank 0 could not start: no-such-user
    apply {kind: job, name: b, command: x, restarts: {budget: 0, backoff: 1s}}
      -> workload_submitted attempt_began workload_state:starting +start:2-1-0
    unstartable b/0 port-taken retryable
      -> rank_ended:0 attempt_stopping:failure attempt_ended:restart workload_state:restarting
    wait 1000 -> attempt_began workload_state:starting +start:2-2-0
  )");
}

TEST(Controller, ATimeLimitEndsAJob) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: job, name: a, command: x, time_limit: 10s}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    wait 9999 -> nothing
    wait 1 -> attempt_stopping:time_limit workload_state:stopping +stop:1-1-0
    exit a/0 75 stopped -> rank_ended:0 attempt_ended:failed workload_state:failed
  )");
}

TEST(Controller, ReplicasRestartAloneAndRollOneByOne) {
  check_script(R"(
    host h1 4 -> host_joined
    apply {kind: service, name: s, replicas: 2, command: x, health: {path: /h}, restarts: {backoff: 1s}}
      -> workload_submitted replica_began:0 replica_began:1 workload_state:starting +start:1-1-0
      & +start:1-1-1
    started s/0 -> rank_started:0
    ready s/0 -> replica_ready:0 workload_state:running
    ready s/1 -> replica_ready:1
    exit s/1 1 -> rank_ended:1 workload_state:running
    wait 1000 -> replica_began:1 workload_state:running +start:1-2-1
    ready s/1 -> replica_ready:1
    apply {kind: service, name: s, replicas: 2, command: y, health: {path: /h}, restarts: {backoff: 1s}}
      -> workload_updated replica_stopping:update:0 +stop:1-1-0
    exit s/0 0 stopped -> rank_ended:0 replica_began:0 +start:1-2-0
    ready s/0 -> replica_ready:0 replica_stopping:update:1 +stop:1-2-1
    exit s/1 0 stopped -> rank_ended:1 replica_began:1 +start:1-3-1
    ready s/1 -> replica_ready:1
    unready s/1 -> replica_unready:500:1
    apply {kind: service, name: s, replicas: 1, command: y, health: {path: /h}, restarts: {backoff: 1s}}
      -> workload_updated replica_stopping:scale_down:1 +stop:1-3-1
    exit s/1 0 stopped -> rank_ended:1
    cancel s -> workload_cancelling replica_stopping:cancel:0 workload_state:stopping +stop:1-2-0
    exit s/0 0 stopped -> rank_ended:0 workload_state:cancelled
  )");
}

// Goal: the number of replicas changes by command, within bounds, and an applied file does not undo it.
TEST(Controller, AServiceIsScaledWithinItsBoundsAndAFileDoesNotUndoIt) {
  check_script(R"(
    host h1 4 -> host_joined
    apply {kind: service, name: s, command: x, model_name: m, autoscale: {min: 0, max: 2, ttft: 1s}}
      -> workload_submitted replica_began:0 workload_state:starting +start:1-1-0
    started s/0 -> rank_started:0 workload_state:running
    scale s 2 -> service_scaled:test replica_began:1 +start:1-1-1
    scale s 3 -> refused: service s may have 0 to 2 replicas (its 'autoscale'), not 3
    apply {kind: service, name: s, command: x, model_name: m, autoscale: {min: 0, max: 2, ttft: 1s}} -> nothing
    scale s 0 -> service_scaled:test replica_stopping:scale_down:0 replica_stopping:scale_down:1
      & workload_state:starting +stop:1-1-0 +stop:1-1-1
    exit s/0 0 stopped -> rank_ended:0
    exit s/1 0 stopped -> rank_ended:1 workload_state:pending
    scale s 1 -> service_scaled:test replica_began:0 workload_state:starting +start:1-2-0
    apply {kind: job, name: j, command: x} -> workload_submitted attempt_began workload_state:starting +start:2-1-0
    scale j 2 -> refused: j is a job; only services have replicas
    scale t 2 -> refused: there is no service t that runs; see: capstan get
  )");
}

TEST(Controller, TasksAreRangesAndFailuresAreTriedAgainAlone) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: tasks, name: t, count: 1000000, retries: 1, command: x}
      -> workload_submitted tasks_began[[0,2]] workload_state:running +start:1-1-0 +start:1-1-1
    started t/0 -> tasks_started[[0,1]]
    exit t/0 0 -> tasks_succeeded[[0,1]] tasks_began[[2,3]] +start:1-1-2
    exit t/1 9 -> rank_ended:retry:1 tasks_began[[3,4]] workload_state:running +start:1-1-3
    wait 1000 -> nothing
    exit t/2 0 -> tasks_succeeded[[2,3]] tasks_began[[1,2]] +start:1-2-1
    exit t/1 9 -> rank_ended:failed:1 tasks_began[[4,5]] +start:1-1-4
    show t -> running 3/1000000 task 1 exited with code 9
    apply {kind: tasks, name: t, count: 1000000, retries: 1, command: y}
      -> refused: tasks t: command cannot change from x to y while it runs; cancel it first
    cancel t -> workload_cancelling tasks_stopping:cancel workload_state:stopping +stop:1-1-3 +stop:1-1-4
  )");
}

TEST(Controller, AnArrayEndsWhenAllTasksHave) {
  check_script(R"(
    host h1 4 -> host_joined
    apply {kind: tasks, name: t, count: 3, parallelism: 2, command: x}
      -> workload_submitted tasks_began[[0,2]] workload_state:running +start:1-1-0 +start:1-1-1
    exit t/0 0 -> tasks_succeeded[[0,1]] tasks_began[[2,3]] +start:1-1-2
    exit t/1 1 -> rank_ended:failed:1 workload_state:running
    exit t/2 0 -> tasks_succeeded[[2,3]] workload_state:failed
    show t -> failed 3/3 1 of 3 tasks failed; task 1 exited with code 1
  )");
}

TEST(Controller, AnEndIsSaidOnce) {
  protocol::RankExited exit;
  exit.exit_code = 3;
  exit.message = "exited with code 3";
  EXPECT_EQ(exit_text(exit), "exited with code 3");
  exit.message = "stopped: it ran longer than its timeout";
  EXPECT_EQ(exit_text(exit), "exited with code 3: stopped: it ran longer than its timeout");
  exit.oom = true;
  EXPECT_EQ(exit_text(exit), "ran out of its memory limit");
}

TEST(Controller, RanksGetTorchrunsEnvironment) {
  Controller controller;
  controller.apply({1, JoinHost{"h1", "i", "b", "", {3000, 0, 0}, {}}});
  const auto specs = workload::parse_specs("{kind: job, name: a, ranks: 2, command: x, env: {FOO: bar}}", {});
  const Outcome outcome = controller.apply({1, Apply{*specs, false}});
  ASSERT_EQ(outcome.effects.size(), 1u);
  const auto effects = render(controller.state(), outcome.effects[0]);
  ASSERT_EQ(effects.size(), 2u);
  const auto& start = std::get<protocol::StartRank>(effects[1].body);
  std::string text;
  for (const auto& [name, value] : start.env) text += name + "=" + value + " ";
  EXPECT_EQ(text,
            "CAPSTAN_ATTEMPT=1 CAPSTAN_JOB=a CAPSTAN_JOB_ID=1 CAPSTAN_RANK=1 FOO=bar GROUP_RANK=0 "
            "GROUP_WORLD_SIZE=1 LOCAL_RANK=1 "
            "LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=20000 NODE_RANK=0 OMP_NUM_THREADS=1 RANK=1 "
            "ROLE_RANK=1 ROLE_WORLD_SIZE=2 "
            "TORCHELASTIC_MAX_RESTARTS=3 TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_RUN_ID=a-1 "
            "TORCHELASTIC_USE_AGENT_STORE=False WORLD_SIZE=2 ");
}

// What the gateway is told of each replica.
TEST(Controller, ServedReplicasCarryHowTheGatewayShallAskThem) {
  Controller controller;
  controller.apply({1, JoinHost{"h1", "i", "b", "", {3000, 0, 0}, {}}});
  for (const char* yaml : {"{kind: service, name: plain, command: x, model_name: m, hedge_after: 300ms}",
                           "{kind: service, name: ours, engine: {model: abacus}}"})
    controller.apply({1, Apply{*workload::parse_specs(yaml, {}), false}});
  std::string text;
  for (const ServedReplica& replica : served(controller.state()).replicas)
    text += fmt::format("{} {} {}; ", replica.service, replica.hedge_after_ms, replica.http2);
  EXPECT_EQ(text, "plain 300 false; ours 0 true; ");
}

}  // namespace
}  // namespace capstan::controller

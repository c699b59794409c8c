// Goal: the lives of jobs, services, tasks and hosts, legal and illegal steps alike.
// Method: scripts. Each line is an input and, after "->", what must follow: events in order, then effects
// (+start …).
#include "controller/controller.h"
#include "controller/decision.h"
#include "controller/effects.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "controller/view.h"

namespace capstan::controller {
namespace {

class Script {
 public:
  // A line that begins with "->" or "&" goes on with the one before.
  void check(std::string_view text) {
    std::vector<std::string> statements;
    for (const std::string_view raw : split(text, '\n')) {
      const std::string_view line = trim(raw);
      if (line.empty()) continue;
      if (line.starts_with("->")) {
        statements.back() += " " + std::string(line);
      } else if (line.starts_with("&")) {
        statements.back() += " " + std::string(trim(line.substr(1)));
      } else {
        statements.emplace_back(line);
      }
    }
    for (const std::string& statement : statements) {
      const std::size_t arrow = statement.find(" -> ");
      ASSERT_NE(arrow, statement.npos) << statement;
      EXPECT_EQ(run(statement.substr(0, arrow)), statement.substr(arrow + 4)) << "at: " << statement;
    }
  }
  const State& state() const { return controller_.state(); }

 private:
  // "a/0": rank 0 of workload a in its current attempt.
  RankId rank(const std::string& text) {
    const auto parts = split(text, '/');
    const Workload* workload = state().find(parts[0]);
    const std::int64_t index = *parse_int(parts[1]);
    std::int64_t attempt = 1;
    if (workload->spec.is_gang()) attempt = workload->job.attempt;
    if (workload->spec.kind == workload::Kind::kService)
      attempt = workload->service.replicas.at(index).attempt;
    if (const auto found = workload->tasks.find(index); found.run != nullptr) attempt = found.run->attempt;
    return {workload->id, attempt, index};
  }
  static std::string one_line(std::string text) {
    for (std::size_t at = 0; (at = text.find('\n', at)) != text.npos;) text.replace(at, 1, " | ");
    return text;
  }
  std::string host_of(const RankId& id) {
    for (const auto& [host, contact] : state().contacts) {
      const auto ranks = state().ranks_on(host);
      if (std::binary_search(ranks.begin(), ranks.end(), id)) return state().name(host);
    }
    return state().name(state().contacts.begin()->first);
  }

  std::string run(const std::string& line) {
    std::vector<std::string> words;
    for (const auto word : split(line, ' ')) words.emplace_back(word);
    const std::string& verb = words[0];
    if (verb == "wait") {
      time_ms_ += *parse_int(words[1]);
      return apply(Tick{});
    }
    if (verb == "apply") {
      const auto specs = workload::parse_specs(line.substr(6), {.source = "t", .base_directory = "/"});
      if (!specs) return specs.error()[0].text();
      return apply(Apply{*specs, false});
    }
    if (verb == "cancel") return apply(Cancel{words[1]});
    if (verb == "scale") return apply(Scale{words[1], *parse_int(words[2]), "test"});
    if (verb == "drain") return apply(Drain{});
    if (verb == "epoch") return apply(BeginEpoch{state().epoch + 1, "b"});
    if (verb == "host")
      return apply(JoinHost{words[1],
                            "i1",
                            "b",
                            "http://127.0.0.1:1",
                            {*parse_int(words[2]) * 1000, std::int64_t{8} << 30, 0},
                            {}});
    if (verb == "suspect") return apply(SetHealth{words[1], fleet::Health::kSuspect});
    if (verb == "lost") return apply(SetHealth{words[1], fleet::Health::kLost});
    if (verb == "back") return apply(SetHealth{words[1], fleet::Health::kHealthy});
    if (verb == "explain") return one_line(*explain(state(), *state().find(words[1])).get_string("text"));
    if (verb == "show") return show(words[1]);
    return report(words);
  }

  std::string report(const std::vector<std::string>& words) {
    const RankId id = rank(words[1]);
    protocol::Report report{1, id, {}};
    if (words[0] == "started") report.body = protocol::RankStarted{100, 0, words.size() > 2 ? words[2] : ""};
    if (words[0] == "ready") report.body = protocol::RankReady{"127.0.0.1", 1};
    if (words[0] == "unready") report.body = protocol::RankUnready{"500"};
    if (words[0] == "unstartable") report.body = protocol::RankStartFailed{words.at(2), words.size() > 3};
    if (words[0] == "ended") {
      protocol::RankExited exit{.exit_code = 0, .signal = {}, .message = words.at(2)};
      for (std::size_t i = 3; i < words.size(); ++i) exit.message += " " + words[i];
      report.body = exit;
    }
    if (words[0] == "lostrank") {
      protocol::RankExited exit{.exit_code = {}, .signal = {}, .message = "gone"};
      exit.lost = true;
      report.body = exit;
    }
    if (words[0] == "exit") {
      protocol::RankExited exit;
      exit.exit_code = *parse_int(words.at(2));
      exit.stopped = words.size() > 3;
      report.body = exit;
    }
    return apply(Reports{host_of(id), {report}, {}});
  }

  std::string show(const std::string& name) {
    const Json json = view(state(), *state().find(name), false);
    return fmt::format("{} {}/{} {}", *json.get_string("state"), *json.get_int("ready"),
                       *json.get_int("wanted"), *json.get_string("reason"));
  }

  std::string apply(decltype(Input::what) what) {
    const Outcome outcome = controller_.apply({time_ms_, std::move(what)});
    if (!outcome.answer) return "refused: " + outcome.answer.error().message;
    std::string out;
    for (const Json& event : outcome.events) {
      out += (out.empty() ? "" : " ") + *event.get_string("type");
      for (const auto key : {"state", "next", "why", "rank", "health"}) {
        if (const Json* value = event.find(key))
          out += ":" + (value->is_string() ? value->as_string() : value->dump());
      }
      if (const Json* ranges = event.find("ranges")) out += ranges->dump();
    }
    for (const HostEffect& effect : outcome.effects) {
      for (std::int64_t i = 0; i < effect.count; ++i) {
        out += fmt::format(" +{}:{}", effect.kind == HostEffect::Kind::kStart ? "start" : "stop",
                           RankId{effect.job, effect.attempt, effect.first + i}.text());
      }
    }
    return out.empty() ? "nothing" : out;
  }

  Controller controller_;
  std::int64_t time_ms_ = 1'000;
};

void check_script(std::string_view text) { Script().check(text); }

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

// Goal: to the controller a sandbox is a gang of one, whose end is told in its own words.
TEST(Controller, ASandboxIsPlacedRunsAndEndsWithAReason) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a, timeout: 1h} -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    explain a -> sandbox a is running | attempt 1 is placed: 1 ranks on h1
    apply {kind: sandbox, name: a, timeout: 2h}
      -> refused: sandbox a: timeout cannot change from 1h to 2h while it runs; cancel it first
    apply {kind: sandbox, name: a, timeout: 1h, priority: 3} -> workload_updated
    ended a/0 its time is over -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded
    show a -> succeeded 1/1 its time is over
  )");
}

TEST(Controller, ALostSandboxFailsUnlessItMayStartAgain) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a} -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    lostrank a/0 -> rank_ended:0 attempt_stopping:failure attempt_ended:failed workload_state:failed
    show a -> failed 0/1 it was lost: gone
    apply {kind: sandbox, name: b, restarts: {budget: 1, backoff: 1s}}
      -> workload_submitted attempt_began workload_state:starting +start:2-1-0
    started b/0 5e56 -> rank_started:0 workload_state:running
    lostrank b/0 -> rank_ended:0 attempt_stopping:failure attempt_ended:restart workload_state:restarting
    wait 1000 -> attempt_began workload_state:starting +start:2-2-0
    started b/0 5e57 -> rank_started:0 workload_state:running
    cancel b -> workload_cancelling attempt_stopping:cancel workload_state:stopping +stop:2-2-0
    exit b/0 0 stopped -> rank_ended:0 attempt_ended:cancelled workload_state:cancelled
  )");
}

// Goal: preemption ends it gracefully and puts it back into the queue; it begins again elsewhere or later.
TEST(Controller, ASandboxMakesRoomForWorkOfHigherPriority) {
  check_script(R"(
    host h1 2 -> host_joined
    apply {kind: sandbox, name: a, resources: {cpus: 2}}
      -> workload_submitted attempt_began workload_state:starting +start:1-1-0
    started a/0 5e55 -> rank_started:0 workload_state:running
    apply {kind: job, name: b, priority: 10, command: x, resources: {cpus: 2}}
      -> workload_submitted claim_added attempt_stopping:preempted workload_state:stopping +stop:1-1-0
    exit a/0 0 stopped
      -> rank_ended:0 attempt_ended:resume attempt_began workload_state:pending workload_state:starting +start:2-1-0
    exit b/0 0
      -> rank_ended:0 attempt_ended:succeeded workload_state:succeeded attempt_began workload_state:starting +start:1-2-0
  )");
}

// Goal: what a host is told of a sandbox, and that a snapshot knows its session.
TEST(Controller, ASandboxIsStartedWithItsTermsAndSnapshotsKeepItsSession) {
  Controller controller;
  controller.apply({1, JoinHost{"h1", "i1", "b", "http://127.0.0.1:1", {2000, std::int64_t{8} << 30, 0}, {}}});
  const auto specs = workload::parse_specs(
      "{kind: sandbox, name: a, template: tools, timeout: none, network: {allow: [x.org]}, env: {K: v}}",
      {.source = "t"});
  ASSERT_TRUE(specs);
  controller.apply({2, Apply{*specs, false}});
  const RankId id{1, 1, 0};
  const auto effect = start_effect(controller.state(), id);
  const auto& start = std::get<protocol::StartRank>(effect.body);
  EXPECT_EQ(start.kind, "sandbox");
  EXPECT_TRUE(start.command.empty());
  EXPECT_EQ(start.resources.memory_bytes, workload::kSessionMemoryDefault);
  ASSERT_TRUE(start.session);
  EXPECT_EQ(start.session->dump(), R"({"template":"tools","timeout_ms":0,"allow":["x.org"]})");
  std::map<std::string, std::string> env(start.env.begin(), start.env.end());
  EXPECT_EQ(env, (std::map<std::string, std::string>{
                     {"CAPSTAN_ATTEMPT", "1"}, {"CAPSTAN_JOB", "a"}, {"CAPSTAN_JOB_ID", "1"}, {"K", "v"}}));
  const auto back = protocol::Effect::from_json(*Json::parse(effect.to_json().dump()));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, effect);

  controller.apply({3, Reports{"h1", {{1, id, protocol::RankStarted{0, 0, "5e55"}}}, {}}});
  EXPECT_EQ(view(controller.state(), *controller.state().find("a"), false).get_string("session"), "5e55");
  std::string text;
  controller.write_snapshot([&](std::string_view piece) { text += piece; });
  const auto again = Controller::from_snapshot_text(text);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->state_hash(), controller.state_hash());
  EXPECT_EQ(again->state().find("a")->job.session, "5e55");
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

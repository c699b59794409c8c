// How it works: operations at random moments; what each does is decided by its own draw, so that leaving one
// out changes no other.
#include <algorithm>

#include "sim/campaign/cluster.h"
#include "workload/spec.h"

namespace capstan::sim::campaign {

std::string_view op_name(Op::Kind kind) {
  constexpr std::string_view kNames[] = {"submit",      "cancel",       "verb",      "kill rank",
                                         "kill worker", "kill host",    "partition", "kill controller",
                                         "tear batch",  "slow network", "slow host", "jump clock",
                                         "snapshot",    "flap",         "broken GPU"};
  return kNames[static_cast<int>(kind)];
}

Plan plan_of(std::uint64_t seed) {
  Plan plan{seed, {}};
  Prng prng(Prng::at(seed, 2));
  const auto add = [&](Op::Kind kind, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i)
      plan.ops.push_back({static_cast<std::int64_t>(prng.below(kFaultsMs)), kind, prng.next()});
  };
  using Kind = Op::Kind;
  add(Kind::kSubmit, prng.between(8, 24));
  for (const Kind kind :
       {Kind::kCancel, Kind::kVerb, Kind::kKillRank, Kind::kKillWorker, Kind::kKillHost, Kind::kPartition,
        Kind::kKillController, Kind::kTearBatch, Kind::kSlowNetwork, Kind::kSlowHost, Kind::kJumpClock,
        Kind::kSnapshot, Kind::kFlap, Kind::kSilentGpu}) {
    add(kind, prng.below(3) == 0 ? 0 : prng.between(0, 4));
  }
  std::stable_sort(plan.ops.begin(), plan.ops.end(),
                   [](const Op& a, const Op& b) { return a.at_ms < b.at_ms; });
  return plan;
}

void Cluster::act(const Op& op) {
  Prng prng(op.draw);
  Host& host = hosts_[prng.below(hosts_.size())];
  using Kind = Op::Kind;
  note(fmt::format("{} ({})", op_name(op.kind), host.name));
  switch (op.kind) {
    case Kind::kSubmit:
      return submit(op.draw);
    case Kind::kCancel: {
      const std::string name = fmt::format("w{}", prng.below(static_cast<std::uint64_t>(works_made_) + 1));
      if (controller_ == nullptr || controller_->state().find(name) == nullptr) return;
      if (feed(controller::Cancel{name})) answered_.push_back({name, true});
      return hit("work was cancelled");
    }
    case Kind::kVerb: {
      if (controller_ == nullptr) return;
      constexpr controller::HostVerb kVerbs[] = {controller::HostVerb::kCordon,
                                                 controller::HostVerb::kUncordon,
                                                 controller::HostVerb::kDrain, controller::HostVerb::kReturn};
      (void)feed(controller::SetCondition{{host.name}, kVerbs[prng.below(4)], {}, ""});
      return hit("an operator changed a host");
    }
    case Kind::kSilentGpu:
      if (controller_ == nullptr || host.capacity.gpus == 0) return;
      (void)feed(controller::SetCondition{
          {host.name}, controller::HostVerb::kFail, {static_cast<std::int64_t>(prng.below(4))}, "xid"});
      return hit("a GPU was declared broken");
    case Kind::kKillRank:
      for (auto& [id, rank] : host.ranks) {
        if (rank.phase != protocol::RankPhase::kRunning) continue;
        end_rank(host, id, rank, 139, false, false);
        return hit("a process died");
      }
      return;
    case Kind::kKillWorker:
      if (!host.up) return;
      // Its shims hold the ranks; what it had not said it finds again in their records.
      host.worker_back_ms = now_ms_ + prng.between(1, 60) * 1'000;
      host.incarnation = fmt::format("{}-{}", host.name, ++host.incarnations);
      host.call = 0;
      host.full = true;
      host.effects_done = host.epoch_seen = 0;
      return hit(host.ranks.empty() ? "a worker died" : "a worker died, its ranks lived on");
    case Kind::kKillHost:
    case Kind::kFlap: {
      if (!host.up) return;
      host.up = false;
      host.back_ms = now_ms_ + (op.kind == Kind::kFlap ? 32'000 : prng.between(5, 120) * 1'000);
      host.incarnation = fmt::format("{}-{}", host.name, ++host.incarnations);
      host.call = 0;
      host.full = true;
      host.effects_done = host.epoch_seen = 0;
      host.outbox.clear();
      bool busy = false;
      for (auto& [id, rank] : host.ranks) {
        if (rank.phase == protocol::RankPhase::kExited) continue;
        busy = true;
        end_rank(host, id, rank, 137, false, true);  // found dead when it is up again
      }
      return hit(busy ? "a host died with ranks on it" : "an idle host died");
    }
    case Kind::kPartition: {
      const std::int64_t until = now_ms_ + prng.between(2, 90) * 1'000;
      if (prng.below(4) == 0) {
        for (Host& one : hosts_) one.cut_until_ms = until;
        return hit("the controller was cut off from everybody");
      }
      host.cut_until_ms = until;
      return hit(host.ranks.empty() ? "an idle host was cut off" : "a host was cut off with ranks running");
    }
    case Kind::kKillController:
      crash(false);
      back_ms_ = now_ms_ + prng.between(1, 60) * 1'000;
      return;
    case Kind::kTearBatch:
      tear_next_ = true;
      return;
    case Kind::kSlowNetwork:
      bad_net_until_ms_ = now_ms_ + prng.between(5, 60) * 1'000;
      return hit("the network was bad");
    case Kind::kSlowHost:
      host.slow_until_ms = now_ms_ + prng.between(5, 60) * 1'000;
      return hit("a host was slow");
    case Kind::kJumpClock:
      jump_ms_ += prng.between(-600, 600) * 1'000;
      return hit("the clock jumped");
    case Kind::kSnapshot:
      if (controller_ == nullptr || !batch_.empty()) return;
      snapshot_.clear();
      controller_->write_snapshot([&](std::string_view piece) { snapshot_ += piece; });
      snapshot_rows_ = disk_.size();
      return hit("a snapshot was taken");
  }
}

void Cluster::submit(std::uint64_t draw) {
  if (controller_ == nullptr) return hit("a command found nobody");
  Prng prng(Prng::at(draw, 3));
  workload::Spec spec;
  spec.name = fmt::format("w{}", works_made_++);
  spec.command = {"x"};
  spec.priority = prng.between(0, 2);
  constexpr const char* kTenants[] = {"default", "limited", "owner", "cells"};
  spec.tenant = kTenants[prng.below(4)];
  spec.restarts.budget = 1'000;
  spec.restarts.backoff_max_ms = 5'000;
  spec.grace_ms = 5'000;
  if (prng.below(3) == 0) spec.checkpoint.interval_ms = 60'000;
  const std::uint64_t kind = prng.below(10);
  if (kind == 5) {
    spec.kind = workload::Kind::kSandbox;
    spec.resources.memory_bytes = workload::kSessionMemoryDefault;
  } else if (kind < 5) {
    const bool small = spec.tenant == std::string_view("limited");
    spec.ranks = prng.between(1, small ? 2 : 3);
    spec.resources.gpus = prng.below(3) == 0 ? prng.between(1, 3) : 4;
    if (prng.below(2) == 0) spec.placement.segment = spec.ranks;
    if (spec.placement.segment == 0 && prng.below(4) == 0) spec.ranks_min = 1;
    if (prng.below(3) == 0) spec.time_limit_ms = prng.between(180, 600) * 60'000;
    if (prng.below(6) == 0)
      spec.helpers = workload::HelpersSpec{.ranks = 1, .resources = {.milli_cpus = 1'000}, .command = {}};
  } else if (kind < 8) {
    spec.kind = workload::Kind::kService;
    spec.replicas = prng.between(1, 3);
    spec.resources.gpus = prng.between(0, 2);
  } else {
    spec.kind = workload::Kind::kTasks;
    spec.count = prng.between(1, 60);
    spec.retries = 1'000;
    spec.resources.milli_cpus = 1'000;
  }
  const std::string name = spec.name;
  tenant_of_[name] = spec.tenant;
  ranks_of_[name] = spec.ranks;
  least_of_[name] = spec.ranks_min > 0 ? spec.ranks_min : spec.ranks;
  const auto answer = feed(controller::Apply{{std::move(spec)}, false});
  if (answer) {
    answered_.push_back({name, false});
  } else {
    fail("a good command was refused: " + answer.error().message);
  }
}

}  // namespace capstan::sim::campaign

// How it works: what simulated hosts do. An attempt is a Run with a serial number; moments that carry another
// serial are about an attempt that is over and come to nothing, and so do reports that the controller no
// longer waits for.
#include <algorithm>
#include <map>
#include <set>

#include "base/assert.h"
#include "sim/books.h"
#include "sim/training_model.h"
#include "sim/world.h"

namespace capstan::sim {

using controller::HostEffect;
using controller::Reports;
using fleet::HostId;
using fleet::index;

namespace {

constexpr std::int64_t kLaunchMs = 500;  // until a process runs
constexpr std::int64_t kExitMs = 200;    // until one that was asked to stop has

// How long so much work takes with a stall for each checkpoint; the last one is at the end and is not waited
// for.
std::int64_t with_stalls(std::int64_t work_ms, std::int64_t interval_ms, std::int64_t stall_ms) {
  if (interval_ms <= 0 || work_ms <= 0) return work_ms;
  return work_ms + (work_ms - 1) / interval_ms * stall_ms;
}

// Work that takes `left_ms` on `asked` ranks on the best placement.
std::int64_t takes_here(std::int64_t left_ms, std::int64_t asked, std::int64_t ranks,
                        std::int64_t pace_milli) {
  return ranks == 0 ? 0 : left_ms * asked / ranks * pace_milli / 1'000;
}

protocol::RankExited exit_with(std::int64_t code, bool asked) {
  protocol::RankExited exit;
  if (asked) {
    exit.signal = 15;
    exit.stopped = true;
  } else {
    exit.exit_code = code;
  }
  return exit;
}

}  // namespace

std::int64_t World::pace_of(const Plan& plan, const Run& run) const {
  const TrainingModel* model = plan.behaviour.model.empty() ? nullptr : training_model(plan.behaviour.model);
  if (model == nullptr || plan.gpus_each == 0 || run.parts.empty()) return 1'000;
  const auto& topology = controller_.state().inventory.topology();
  std::map<fleet::DomainId, std::int64_t> domains;  // GPUs of the gang in each
  std::set<fleet::BlockId> blocks;
  std::int64_t gpus = 0, most = 0;
  for (const Part& part : run.parts) {
    const fleet::DomainId domain = topology.domain_of(part.host);
    domains[domain] += part.count * plan.gpus_each;
    blocks.insert(topology.block_of(part.host));
    gpus += part.count * plan.gpus_each;
    most = std::max(most, topology.domain(domain).hosts * topology.host_class(part.host).capacity.gpus);
  }
  std::int64_t least = gpus;
  for (const auto& [domain, held] : domains) least = std::min(least, held);
  const auto count = static_cast<std::int64_t>(domains.size()),
             fewest = (gpus + most - 1) / std::max<std::int64_t>(1, most);
  const Spread here{.gpus = gpus,
                    .gpus_per_domain = least,
                    .domains = count,
                    .blocks = static_cast<std::int64_t>(blocks.size())};
  const Spread best{.gpus = gpus,
                    .gpus_per_domain = gpus / std::max<std::int64_t>(1, fewest),
                    .domains = fewest,
                    .blocks = 1};
  return pace_milli(*model, gpu_model(topology.host_class(run.parts.front().host).gpu_model), here, best);
}

void World::note_first_start(Plan& plan) {
  if (plan.first_start_ms >= 0) return;
  plan.first_start_ms = now_ms_;
  books_->wait(plan.kind, now_ms_ - plan.arrived_ms);
}

// What becomes of the ranks that the effect is about, later.
World::Moment World::moment_of(const HostEffect& effect) const {
  return {.job = effect.job,
          .first = effect.first,
          .count = static_cast<std::int32_t>(effect.count),
          .attempt = static_cast<std::int32_t>(effect.attempt),
          .host = index(effect.host),
          .life = lives_[index(effect.host)]};
}

void World::start(const HostEffect& effect, Plan& plan) {
  if (plan.is == workload::Kind::kTasks) return start_tasks(effect, plan);
  if (plan.is == workload::Kind::kService) return start_replica(effect, plan);
  Run& run = plan.run;
  if (run.attempt != effect.attempt) {
    run = Run{.attempt = effect.attempt, .serial = ++runs_made_, .began_ms = now_ms_};
    note_first_start(plan);
    const std::int64_t prepare =
        plan.behaviour.start_ms + (plan.attempts++ > 0 ? plan.behaviour.restart_ms : 0);
    run.work_from_ms = now_ms_ + kLaunchMs + prepare;
    push(What::kStarted, now_ms_ + kLaunchMs, {.job = effect.job, .first = run.serial});
    // All parts of the attempt come in the same round of effects, so its size is known when it has started.
  }
  run.parts.push_back({effect.host, effect.first, effect.count});
  run.dead = run.dead || down_[index(effect.host)] > 0;
  books_->gpus_in_use(plan.kind, effect.count * plan.gpus_each);
}

void World::start_replica(const HostEffect& effect, Plan& plan) {
  note_first_start(plan);
  Run& run = plan.replicas[effect.first];
  close_run(plan, run, true);
  run = Run{.attempt = effect.attempt, .serial = ++runs_made_, .began_ms = now_ms_};
  run.work_from_ms = now_ms_ + kLaunchMs + plan.behaviour.start_ms;
  run.parts.push_back({effect.host, effect.first, 1});
  run.dead = down_[index(effect.host)] > 0;
  books_->gpus_in_use(plan.kind, plan.gpus_each);
  push(What::kStarted, run.work_from_ms,
       {.job = effect.job,
        .first = run.serial,
        .host = static_cast<std::uint32_t>(effect.first)});  // which replica
}

void World::start_tasks(const HostEffect& effect, Plan& plan) {
  note_first_start(plan);
  Moment moment = moment_of(effect);
  if (down_[index(effect.host)] > 0) return;  // lost as soon as it is noticed
  const std::int64_t work = std::max<std::int64_t>(1, plan.behaviour.work_ms),
                     spread = plan.behaviour.spread_milli;
  if (spread == 0) return push(What::kTasksEnd, now_ms_ + work, moment);
  moment.count = 1;
  for (std::int64_t i = 0; i < effect.count; ++i) {
    moment.first = effect.first + i;
    const std::uint64_t drawn = Prng::at(setup_.seed ^ static_cast<std::uint64_t>(effect.job),
                                         static_cast<std::uint64_t>(moment.first));
    const std::int64_t milli =
        1000 - spread + static_cast<std::int64_t>(drawn % static_cast<std::uint64_t>(2 * spread + 1));
    push(What::kTasksEnd, now_ms_ + std::max<std::int64_t>(1, work * milli / 1000), moment);
  }
}

void World::stop(const HostEffect& effect, Plan& plan) {
  const Moment moment = moment_of(effect);
  if (down_[index(effect.host)] > 0) return;
  std::int64_t takes = kExitMs;
  const bool graceful = effect.why != controller::StopWhy::kFailure;
  if (plan.is == workload::Kind::kJob && plan.run.attempt == effect.attempt && !plan.run.stopping) {
    Run& run = plan.run;
    run.stopping = true;
    close_run(plan, run, graceful && !run.dead);
    if (run.hangs_from_ms >= 0) {
      std::int64_t ranks = 0;
      for (const Part& part : run.parts) ranks += part.count;
      books_->attempt(plan.kind, {.gpus = ranks * plan.gpus_each, .wall_ms = now_ms_ - run.hangs_from_ms});
      run.hangs_from_ms = -1;
    }
  }
  if (plan.is == workload::Kind::kJob && graceful && plan.checkpoint_ms > 0)
    takes += std::min(plan.grace_ms, plan.behaviour.checkpoint_stall_ms);
  push(What::kStopped, now_ms_ + takes, moment);
}

// The run is over, or its work is: what it did is counted once.
void World::close_run(Plan& plan, Run& run, bool graceful) {
  if (run.serial == 0) return;
  std::int64_t ranks = 0;
  for (const Part& part : run.parts) ranks += part.count;
  Books::Attempt attempt{.gpus = ranks * plan.gpus_each, .wall_ms = now_ms_ - run.began_ms};
  const std::int64_t elapsed = std::max<std::int64_t>(0, now_ms_ - run.work_from_ms);
  if (plan.is == workload::Kind::kService) {
    attempt.useful_ms = run.dead ? 0 : elapsed;
  } else {
    const std::int64_t interval = plan.checkpoint_ms, cycle = interval + plan.behaviour.checkpoint_stall_ms;
    const std::int64_t most = takes_here(plan.left_ms, plan.ranks, ranks, run.pace_milli);
    std::int64_t done = elapsed, kept = 0;
    if (interval > 0) {
      kept = elapsed / cycle * interval;
      done = kept + std::min(elapsed % cycle, interval);
    }
    done = std::min(done, most);
    kept = std::min(kept, most);
    if (done == most || (graceful && interval > 0)) kept = done;
    attempt.useful_ms = kept;
    attempt.lost_ms = done - kept;
    const std::int64_t of_best =
        kept == most ? plan.left_ms
                     : kept * ranks / std::max<std::int64_t>(1, plan.ranks) * 1'000 / run.pace_milli;
    plan.left_ms -= std::min(plan.left_ms, of_best);
  }
  books_->attempt(plan.kind, attempt);
  books_->gpus_in_use(plan.kind, -attempt.gpus);
  run.serial = 0;
}

void World::started(const Moment& moment) {
  Plan* plan = plan_of(moment.job);
  if (plan == nullptr) return;
  const bool service = plan->is == workload::Kind::kService;
  const auto replica = service ? plan->replicas.find(moment.host) : plan->replicas.end();
  if (service && replica == plan->replicas.end()) return;
  Run& run = service ? replica->second : plan->run;
  if (run.serial != moment.first) return;
  if (!run.dead && !service) {
    std::int64_t ranks = 0;
    for (const Part& part : run.parts) ranks += part.count;
    run.pace_milli = pace_of(*plan, run);
    const std::int64_t work = takes_here(plan->left_ms, plan->ranks, ranks, run.pace_milli);
    push(What::kEnds,
         run.work_from_ms + with_stalls(work, plan->checkpoint_ms, plan->behaviour.checkpoint_stall_ms),
         {.job = moment.job, .first = run.serial});
  }
  const std::vector<Part> parts = run.parts;
  const std::int64_t attempt = run.attempt;
  for (const Part& part : parts) {
    if (down_[index(part.host)] > 0) continue;
    Reports reports{name(part.host), {}, {}};
    for (std::int64_t rank = part.first; rank < part.first + part.count; ++rank) {
      reports.reports.push_back({1, {moment.job, attempt, rank}, protocol::RankStarted{1'000 + rank, 0}});
      if (service)
        reports.reports.push_back(
            {1, {moment.job, attempt, rank}, protocol::RankReady{reports.host, 20'000}});
    }
    apply(std::move(reports));
  }
}

void World::report_ends(std::int64_t job, const Run& run, bool asked, std::int64_t exit_code) {
  const std::vector<Part> parts = run.parts;
  const std::int64_t attempt = run.attempt;
  for (const Part& part : parts) {
    if (down_[index(part.host)] > 0) continue;
    Reports reports{name(part.host), {}, {}};
    for (std::int64_t rank = part.first; rank < part.first + part.count; ++rank)
      reports.reports.push_back({1, {job, attempt, rank}, exit_with(exit_code, asked)});
    apply(std::move(reports));
  }
}

void World::ends(const Moment& moment) {
  Plan* plan = plan_of(moment.job);
  if (plan == nullptr || plan->run.serial != moment.first) return;
  close_run(*plan, plan->run, false);
  report_ends(moment.job, plan->run, false, 0);
}

void World::stopped(const Moment& moment) {
  if (lives_[moment.host] != moment.life || down_[moment.host] > 0) return;
  const HostId host{moment.host};
  if (Plan* plan = plan_of(moment.job); plan != nullptr && plan->is == workload::Kind::kService) {
    const auto replica = plan->replicas.find(moment.first);
    if (replica != plan->replicas.end() && replica->second.attempt == moment.attempt)
      close_run(*plan, replica->second, true);
  }
  Reports reports{name(host), {}, {}};
  for (std::int64_t rank = moment.first; rank < moment.first + moment.count; ++rank)
    reports.reports.push_back({1, {moment.job, moment.attempt, rank}, exit_with(0, true)});
  apply(std::move(reports));
}

void World::tasks_end(const Moment& moment) {
  if (lives_[moment.host] != moment.life) return;
  if (plan_of(moment.job) == nullptr) return;
  Reports reports{name(HostId{moment.host}), {}, {}};
  const std::pair range{moment.first, moment.first + moment.count};
  reports.tasks.push_back({moment.job, moment.attempt, {}, {range}});
  apply(std::move(reports));
}

}  // namespace capstan::sim

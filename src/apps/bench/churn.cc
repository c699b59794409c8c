// How it works: the books follow the controller's events (who began, who ended); what is due comes from a
// heap. An end that was due for an attempt that is over is skipped: its successor has one of its own.
#include "apps/bench/churn.h"

#include <algorithm>

#include "apps/bench/latencies.h"
#include "base/assert.h"

namespace capstan::apps::bench {
namespace {

std::int64_t number(const Json& event, std::string_view key) {
  const Json* member = event.find(key);
  return member == nullptr ? 0 : member->as_int();
}

std::string tenant_name(std::int64_t index) { return fmt::format("team-{:02}", index); }

}  // namespace

Churn::Churn(World& world, const Recipe& recipe)
    : world_(world), recipe_(recipe), prng_(static_cast<std::uint64_t>(recipe.seed)) {
  world_.set_watch([this](const Json& event) { on_event(event); });
  const auto& inventory = world_.state().inventory;
  const auto& topology = inventory.topology();
  for (std::uint32_t d = 0; d < topology.domains(); ++d) {
    const fleet::Domain& domain = topology.domain(fleet::DomainId{d});
    const std::int64_t gpus = inventory.capacity(domain.first).gpus;
    if (gpus == 0) continue;
    gpus_per_tray_ = gpus;
    usable_gpus_ += gpus * (domain.hosts - domain.spares);
    for (std::uint32_t i = 0; i < domain.hosts; ++i)
      gpu_hosts_.push_back(HostId{fleet::index(domain.first) + i});
  }
  CAPSTAN_ASSERT(usable_gpus_ > 0);
  constexpr std::int64_t kShareMax = 8;  // one gang is at most an eighth of the fleet
  for (const GangSize& size : recipe_.gangs) {
    if (gangs_.empty() || size.trays * gpus_per_tray_ <= usable_gpus_ / kShareMax) gangs_.push_back(size);
  }
  controller::SetTenants tenants;
  for (std::int64_t i = 0; i < recipe_.tenants; ++i) {
    workload::Tenant tenant;
    tenant.name = tenant_name(i);
    tenants.tenants.push_back(std::move(tenant));
  }
  world_.apply(std::move(tenants));
  frontier_goal_ = usable_gpus_ * recipe_.frontier_percent / 100;
  small_goal_ = usable_gpus_ * recipe_.occupancy_percent / 100 - frontier_goal_;
  draw_gang();
  failure_every_ms_ = recipe_.tray_fails_every_days * 86'400'000 / trays();
  due_.push({world_.now_ms() + failure_every_ms_, 0, 0, What::kFail});
}

double Churn::occupancy() const { return static_cast<double>(busy()) / static_cast<double>(usable_gpus_); }

std::int64_t Churn::busy() const { return world_.state().inventory.total_used().gpus; }

Json Churn::to_json() const {
  const auto all = static_cast<double>(world_.state().inventory.total().gpus);
  return Json::object({{"starts", counts_.starts},
                       {"ends", counts_.ends},
                       {"tray_failures", counts_.tray_failures},
                       {"gave_up", counts_.gave_up},
                       {"preempted", counts_.preempted},
                       {"occupancy", rounded(occupancy())},
                       {"occupancy_of_all_gpus", rounded(static_cast<double>(busy()) / all)},
                       {"running_frontier_gangs", running_gangs_.size()},
                       {"workloads", world_.state().workloads.size() - world_.state().ended.size()},
                       {"seed", recipe_.seed}});
}

void Churn::on_event(const Json& event) {
  const std::string& type = event.find("type")->as_string();
  if (type == "attempt_began") {
    ++counts_.starts;
    const std::int64_t id = number(event, "job");
    const auto at = work_.find(id);
    if (at == work_.end()) return;
    Work& work = at->second;
    work.runs = true;
    waiting_small_.erase(id);
    if (work.frontier) {
      waiting_gangs_.erase(id);
      running_gangs_.insert(id);
      frontier_held_ += work.gpus;
    }
    due_.push({world_.now_ms() + work.duration_ms, id, number(event, "attempt"), What::kEnd});
  } else if (type == "attempt_ended") {
    ++counts_.ends;
    const std::int64_t id = number(event, "job");
    const auto at = work_.find(id);
    if (at == work_.end()) return;
    Work& work = at->second;
    work.runs = false;
    work.submitted_ms = world_.now_ms();
    if (work.frontier) {
      frontier_held_ -= work.gpus;
      running_gangs_.erase(id);
    }
    (work.frontier ? waiting_gangs_ : waiting_small_).insert(id);  // unless it has ended: then below
  } else if (type == "workload_state") {
    const auto state = controller::parse_state(event.find("state")->as_string());
    if (!state || !controller::has_ended(*state)) return;
    const std::int64_t id = number(event, "job");
    work_.erase(id);
    waiting_gangs_.erase(id);
    waiting_small_.erase(id);
  } else if (type == "attempt_stopping") {
    counts_.preempted += event.find("why")->as_string() == "preempted";
  } else if (type == "replica_began") {
    ++counts_.starts;
  } else if (type == "rank_ended") {
    const auto at = work_.find(number(event, "job"));
    counts_.ends += at != work_.end() && at->second.service;
  }
}

void Churn::run(std::int64_t starts_and_ends) {
  const std::int64_t until = counts_.starts + counts_.ends + starts_and_ends;
  while (counts_.starts + counts_.ends < until) step();
}

// At most one submission, or the next thing that is due.
void Churn::step() {
  const std::int64_t gang_gpus = next_gang_.trays * gpus_per_tray_;
  if (frontier_held_ + gang_gpus / 2 <= frontier_goal_ &&
      static_cast<std::int64_t>(waiting_gangs_.size()) < recipe_.waiting_max) {
    return submit_gang();
  }
  // What the frontier does not get, because its gangs do not fit now, is not filled with small work.
  if (busy() - frontier_held_ < small_goal_ && waiting_small_.empty()) return submit_small();
  next();
}

void Churn::next() {
  CAPSTAN_ASSERT(!due_.empty());
  const Due due = due_.top();
  due_.pop();
  world_.advance_to(due.at_ms);
  const auto name = [&] { return world_.state().name(HostId{static_cast<std::uint32_t>(due.id)}); };
  switch (due.what) {
    case What::kEnd: {
      const auto at = work_.find(due.id);
      if (at == work_.end()) return;
      if (at->second.service) {
        cancel(due.id);
        return;
      }
      if (!at->second.runs || world_.state().find(due.id)->job.attempt != due.attempt) return;
      world_.end(due.id);
      break;
    }
    case What::kFail: {
      const HostId host = gpu_hosts_[prng_.below(gpu_hosts_.size())];
      world_.apply(
          controller::SetCondition{{world_.state().name(host)}, controller::HostVerb::kFail, {}, "failed"});
      ++counts_.tray_failures;
      due_.push({world_.now_ms() + 1'000 * recipe_.tray_repair_s, fleet::index(host), 0, What::kReturn});
      due_.push({world_.now_ms() + failure_every_ms_, 0, 0, What::kFail});
      break;
    }
    case What::kReturn:
      world_.apply(controller::SetCondition{{name()}, controller::HostVerb::kReturn, {}, "repaired"});
      break;
  }
  world_.settle();
  give_up();
}

void Churn::give_up() {
  while (!waiting_gangs_.empty()) {
    const std::int64_t oldest = *waiting_gangs_.begin();
    if (work_.at(oldest).submitted_ms + 1'000 * recipe_.give_up_s > world_.now_ms()) return;
    cancel(oldest);
    ++counts_.gave_up;
  }
}

void Churn::cancel(std::int64_t id) {
  world_.apply(controller::Cancel{work_.at(id).name});
  world_.settle();
}

workload::Spec Churn::gang(std::string name, std::int64_t trays, std::int64_t segment,
                           std::int64_t priority) const {
  workload::Spec spec;
  spec.kind = workload::Kind::kJob;
  spec.name = std::move(name);
  spec.tenant = tenant_name(next_name_ % recipe_.tenants);
  spec.priority = priority;
  spec.command = {"train"};
  spec.ranks = trays;
  spec.resources.gpus = gpus_per_tray_;
  spec.resources.milli_cpus = gpus_per_tray_ * recipe_.milli_cpus_per_gpu;
  spec.resources.memory_bytes = gpus_per_tray_ * recipe_.memory_bytes_per_gpu;
  spec.placement.segment = segment;
  spec.checkpoint.interval_ms = 1'800'000;
  return spec;
}

workload::Spec Churn::small(std::int64_t gpus) const {
  const std::int64_t trays = (gpus + gpus_per_tray_ - 1) / gpus_per_tray_;
  workload::Spec spec = gang(fmt::format("small-{}", next_name_), trays, trays > 1 ? trays : 0);
  spec.resources.gpus = gpus / trays;
  spec.resources.milli_cpus = spec.resources.gpus * recipe_.milli_cpus_per_gpu;
  spec.resources.memory_bytes = spec.resources.gpus * recipe_.memory_bytes_per_gpu;
  return spec;
}

void Churn::submit(workload::Spec spec, Work work) {
  ++next_name_;
  work.name = spec.name;
  work.submitted_ms = world_.now_ms();
  // The books must know it before its first event is looked at.
  const std::int64_t id = world_.state().next_id;
  if (!work.service) (work.frontier ? waiting_gangs_ : waiting_small_).insert(id);
  if (work.service) due_.push({world_.now_ms() + work.duration_ms, id, 0, What::kEnd});
  work_[id] = std::move(work);
  world_.apply(controller::Apply{{std::move(spec)}, false});
  world_.settle();
}

void Churn::submit_small() {
  std::int64_t total = 0;
  for (const SmallSize& size : recipe_.small) total += size.weight;
  std::int64_t drawn = prng_.between(0, total - 1);
  const SmallSize* chosen = &recipe_.small.back();
  for (const SmallSize& size : recipe_.small) {
    if (drawn < size.weight) {
      chosen = &size;
      break;
    }
    drawn -= size.weight;
  }
  Work work;
  work.gpus = chosen->gpus;
  work.duration_ms = chosen->durations.draw_ms(prng_);
  workload::Spec spec = small(chosen->gpus);
  if (prng_.between(0, 99) < recipe_.services_percent) {
    spec.kind = workload::Kind::kService;
    spec.ranks = 1;
    spec.replicas = 4;
    spec.resources.gpus = 1;
    spec.resources.milli_cpus = recipe_.milli_cpus_per_gpu;
    spec.resources.memory_bytes = recipe_.memory_bytes_per_gpu;
    spec.placement = {};
    spec.placement.required = fleet::Level::kNone;
    spec.checkpoint = {};
    work.service = true;
  } else if (prng_.between(0, 99) < recipe_.limits_percent) {
    spec.time_limit_ms = 2 * work.duration_ms + 60'000;
  }
  submit(std::move(spec), std::move(work));
}

void Churn::draw_gang() {
  std::int64_t total = 0;
  for (const GangSize& size : gangs_) total += size.weight;
  std::int64_t drawn = prng_.between(0, total - 1);
  for (const GangSize& size : gangs_) {
    next_gang_ = size;
    if (drawn < size.weight) return;
    drawn -= size.weight;
  }
}

void Churn::submit_gang() {
  Work work;
  work.frontier = true;
  work.gpus = next_gang_.trays * gpus_per_tray_;
  work.duration_ms = recipe_.gang_durations.draw_ms(prng_);
  submit(gang(fmt::format("frontier-{}", next_name_), next_gang_.trays, recipe_.segment), std::move(work));
  draw_gang();
}

bool Churn::end_random_gang() {
  if (running_gangs_.empty()) return false;
  auto at = running_gangs_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(prng_.below(running_gangs_.size())));
  world_.end(*at);
  world_.settle();
  return true;
}

void Churn::submit_gang(std::int64_t trays) {
  const std::int64_t id = world_.state().next_id;
  next_gang_ = {trays, 1};
  submit_gang();
  if (waiting_gangs_.contains(id)) cancel(id);
}

void Churn::keep_frontier() { frontier_goal_ = std::min(frontier_goal_, frontier_held_); }

}  // namespace capstan::apps::bench

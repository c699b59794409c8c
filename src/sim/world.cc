// How it works: one loop takes the earliest of the next moment of the heap, the next arrival, the next fault and the
// controller's own deadline; what the controller then asks of hosts is acted on before the clock moves. How hosts act and how
// faults strike: world_hosts.cc.
#include "sim/world.h"

#include <algorithm>

#include "base/assert.h"
#include "sim/books.h"

namespace capstan::sim {

World::World(Setup setup) : setup_(std::move(setup)), books_(std::make_unique<Books>()) {
  end_ms_ = kBeginMs + setup_.duration_ms;
  if (setup_.sample_ms <= 0) setup_.sample_ms = std::max<std::int64_t>(1'000, setup_.duration_ms / 1'000);
  apply(controller::BeginEpoch{1, "simulation"});
  const auto must = [&](decltype(controller::Input::what) what) {
    const auto outcome = apply(std::move(what));
    if (!outcome.answer && refused_.empty()) refused_ = outcome.answer.error().message;
  };
  if (!setup_.tenants.empty()) must(controller::SetTenants{setup_.tenants});
  if (!setup_.order.empty() || setup_.starvation_ms >= 0)
    must(controller::SetPolicy{setup_.order, setup_.starvation_ms});
  must(controller::ApplyFleet{std::move(setup_.fleet), true});
  const auto& topology = controller_.state().inventory.topology();
  lives_.resize(topology.hosts());
  down_.resize(topology.hosts());
  if (setup_.make_faults) faults_ = setup_.make_faults(topology, setup_);
  if (faults_) fault_ = faults_->next();
  if (setup_.arrivals) arrival_ = setup_.arrivals->next();
  push(What::kSample, kBeginMs, {});
  done_ = !refused_.empty();
}

World::~World() = default;

bool World::later(const Moment& a, const Moment& b) {
  return a.time_ms != b.time_ms ? a.time_ms > b.time_ms : a.number > b.number;
}

void World::push(What what, std::int64_t time_ms, Moment moment) {
  moment.what = what;
  moment.time_ms = std::max(time_ms, now_ms_);
  moment.number = ++moments_made_;
  moments_.push_back(moment);
  std::push_heap(moments_.begin(), moments_.end(), &World::later);
}

controller::Outcome World::apply(decltype(controller::Input::what) what) {
  controller::Outcome outcome = controller_.apply({now_ms_, std::move(what)});
  ++inputs_;
  events_ += static_cast<std::int64_t>(outcome.events.size());
  if (!outcome.events.empty()) {
    text_ = std::to_string(outcome.time_ms);
    for (const Json& event : outcome.events) {
      event.dump_to(text_);
      text_ += '\n';
    }
    hash_.add(text_);
  }
  take_events(outcome);
  effects_.insert(effects_.end(), outcome.effects.begin(), outcome.effects.end());
  return outcome;
}

void World::take_events(const controller::Outcome& outcome) {
  for (const Json& event : outcome.events) {
    const std::string& type = event.find("type")->as_string();
    if (type == "workload_state") {
      const std::string& state = event.find("state")->as_string();
      if (state == "succeeded" || state == "failed" || state == "cancelled")
        end_plan(event.find("job")->as_int(), state == "succeeded");
    } else if (type == "attempt_stopping") {
      books_->count("stopped: " + event.find("why")->as_string());
    } else if (type == "tasks_succeeded") {
      for (const Json& range : event.find("ranges")->items())
        books_->count("tasks_done", range.items()[1].as_int() - range.items()[0].as_int());
    } else if (type == "claim_added") {
      books_->count("claims");
    }
  }
}

World::Plan* World::plan_of(std::int64_t job) {
  return job < static_cast<std::int64_t>(plans_.size()) ? plans_[static_cast<std::size_t>(job)].get() : nullptr;
}

void World::end_plan(std::int64_t job, bool well) {
  Plan* plan = plan_of(job);
  if (plan == nullptr) return;
  close_run(*plan, plan->run, false);
  for (auto& [index, run] : plan->replicas) close_run(*plan, run, true);
  books_->count(well ? "workloads_done" : "workloads_ended_otherwise");
  if (well) books_->completed(plan->kind, now_ms_ - plan->arrived_ms);
  plans_[static_cast<std::size_t>(job)].reset();
  --plans_live_;
}

void World::advance(std::int64_t moments) {
  for (std::int64_t i = 0; i < moments && !done_; ++i) {
    std::int64_t next_ms = moments_.empty() ? INT64_MAX : moments_.front().time_ms;
    const std::int64_t arrival_ms = arrival_ ? kBeginMs + arrival_->time_ms : INT64_MAX;
    const std::int64_t fault_ms = fault_ ? kBeginMs + fault_->time_ms : INT64_MAX;
    const std::int64_t deadline_ms = controller_.next_deadline_ms();
    const bool idle = !arrival_ && plans_live_ == 0;
    next_ms = std::min({next_ms, arrival_ms, fault_ms, deadline_ms});
    if (next_ms > end_ms_ || (setup_.until_idle && idle && i > 0)) {
      now_ms_ = setup_.until_idle && idle ? now_ms_ : end_ms_;
      books_->sample(now_ms_ - kBeginMs, controller_.state());
      done_ = true;
      return;
    }
    now_ms_ = std::max(now_ms_, next_ms);
    if (!moments_.empty() && moments_.front().time_ms <= now_ms_) {
      std::pop_heap(moments_.begin(), moments_.end(), &World::later);
      const Moment moment = moments_.back();
      moments_.pop_back();
      happen(moment);
    } else if (arrival_ms <= now_ms_) {
      arrive();
    } else if (fault_ms <= now_ms_) {
      strike();
    } else {
      apply(controller::Tick{});
    }
    for (std::size_t at = 0; at < effects_.size(); ++at) {  // acting may cause no further inputs
      const controller::HostEffect effect = effects_[at];
      Plan* plan = plan_of(effect.job);
      if (plan == nullptr) continue;
      effect.kind == controller::HostEffect::Kind::kStart ? start(effect, *plan) : stop(effect, *plan);
    }
    effects_.clear();
  }
}

void World::happen(const Moment& moment) {
  switch (moment.what) {
    case What::kStarted:
      return started(moment);
    case What::kEnds:
      return ends(moment);
    case What::kStopped:
      return stopped(moment);
    case What::kTasksEnd:
      return tasks_end(moment);
    case What::kDetected:
      return detected(moment);
    case What::kRepaired:
      return repaired(moment);
    case What::kSample:
      return sample();
    case What::kWithdraw:
      if (const Plan* plan = plan_of(moment.job)) apply(controller::Cancel{plan->name});
      return;
  }
}

void World::sample() {
  books_->sample(now_ms_ - kBeginMs, controller_.state());
  push(What::kSample, now_ms_ + setup_.sample_ms, {});
}

void World::arrive() {
  Arrival arrival = *std::move(arrival_);
  arrival_ = setup_.arrivals->next();
  auto plan = std::make_unique<Plan>();
  const workload::Spec& spec = arrival.spec;
  plan->behaviour = arrival.behaviour;
  plan->name = spec.name;
  plan->is = spec.is_gang() ? workload::Kind::kJob : spec.kind;
  plan->arrived_ms = now_ms_;
  plan->left_ms = arrival.behaviour.work_ms;
  plan->ranks = spec.is_gang() ? spec.ranks : 1;
  plan->gpus_each = spec.resources.gpus;
  plan->checkpoint_ms = spec.checkpoint.interval_ms;
  plan->grace_ms = spec.grace_ms;
  plan->kind = books_->kind(arrival.kind);
  const std::int64_t withdrawn_ms = arrival.behaviour.withdrawn_after_ms;
  const std::string name = spec.name;
  // Its id is the next one; the plan must be there when the first effects come.
  const controller::Workload* known = controller_.state().find(name);
  const bool update = known != nullptr && !controller::has_ended(known->state);
  const std::int64_t id = update ? known->id : controller_.state().next_id;
  if (!update) {
    if (static_cast<std::int64_t>(plans_.size()) <= id) plans_.resize(static_cast<std::size_t>(id) + 1);
    plans_[static_cast<std::size_t>(id)] = std::move(plan);
    ++plans_live_;
  }
  const auto outcome = apply(controller::Apply{{std::move(arrival.spec)}, false});
  if (!outcome.answer) {
    if (!update) {
      plans_[static_cast<std::size_t>(id)].reset();
      --plans_live_;
    }
    books_->count("arrivals_refused");
    if (setup_.notes.size() < 20)
      setup_.notes.push_back(fmt::format("{} was refused: {}", name, outcome.answer.error().message));
    return;
  }
  books_->count("arrivals");
  if (withdrawn_ms > 0) push(What::kWithdraw, now_ms_ + withdrawn_ms, {.job = id});
}

Results World::results() {
  Results out;
  out.scenario = setup_.name;
  out.variant = setup_.variant;
  out.seed = setup_.seed;
  out.duration_ms = now_ms_ - kBeginMs;
  out.hash = hash_.text();
  out.inputs = inputs_;
  out.events = events_;
  out.notes = setup_.notes;
  // What still runs counts up to now.
  for (auto& plan : plans_) {
    if (plan == nullptr) continue;
    close_run(*plan, plan->run, true);
    for (auto& [index, run] : plan->replicas) close_run(*plan, run, true);
  }
  books_->fill(out, controller_.state());
  return out;
}

}  // namespace capstan::sim

// How it works: a fault acts on the hosts at once and on the controller when it is detected; what it holds down is counted, so
// that a host in two faults is back when both are repaired.
#include "base/assert.h"
#include "sim/books.h"
#include "sim/world.h"

namespace capstan::sim {

using fleet::HostId;
using fleet::index;

// Everything on the host is gone; gangs that had a rank there hang until somebody notices.
void World::strike_host(HostId host) {
  ++lives_[index(host)];
  ++down_[index(host)];
  for (const auto& holder : controller_.state().inventory.host(host).holders) {
    Plan* plan = plan_of(holder.job);
    if (plan == nullptr) continue;
    if (plan->is == workload::Kind::kJob && plan->run.serial != 0) hang(*plan);
    for (auto& [index_of, run] : plan->replicas) {
      if (run.serial != 0 && !run.parts.empty() && run.parts.front().host == host) close_run(*plan, run, true);
    }
  }
}

// A gang's work ends here, though it holds its room until it has stopped.
void World::hang(Plan& plan) {
  close_run(plan, plan.run, false);
  plan.run.dead = true;
  plan.run.hangs_from_ms = now_ms_;
}

// One rank on the host dies by itself.
void World::strike_process(const Fault& fault) {
  const auto& holders = controller_.state().inventory.host(fault.host).holders;
  for (const auto& holder : holders) {
    Plan* plan = plan_of(holder.job);
    if (plan == nullptr || plan->is != workload::Kind::kJob || plan->run.serial == 0) continue;
    for (const Part& part : plan->run.parts) {
      if (part.host != fault.host) continue;
      hang(*plan);
      controller::Reports reports{name(fault.host), {}, {}};
      protocol::RankExited exit;
      exit.exit_code = 1;
      exit.message = std::string(fault.cause);
      reports.reports.push_back({1, {holder.job, plan->run.attempt, part.first}, std::move(exit)});
      apply(std::move(reports));
      return;
    }
  }
}

void World::strike() {
  const Fault fault = *std::move(fault_);
  fault_ = faults_->next();
  const auto& state = controller_.state();
  const HostId host = fault.host;
  const bool busy = !state.inventory.idle(host);
  const bool down = down_[index(host)] > 0;
  if (down) return;  // it is broken already
  books_->failure(fault.cause, busy);
  const std::int64_t number = ++struck_made_;
  struck_[number] = fault;
  switch (fault.scope) {
    case Fault::Scope::kProcess:
      strike_process(fault);
      struck_.erase(number);
      return;
    case Fault::Scope::kGpu:
      strike_process(fault);
      break;
    case Fault::Scope::kHost:
      strike_host(host);
      break;
    case Fault::Scope::kDomain: {
      const fleet::Domain& domain = state.inventory.topology().domain(state.inventory.topology().domain_of(host));
      for (std::uint32_t i = 0; i < domain.hosts; ++i) strike_host(HostId{index(domain.first) + i});
      break;
    }
    case Fault::Scope::kPlanned:
      break;
  }
  push(What::kDetected, now_ms_ + fault.detected_after_ms, {.job = number});
}

void World::detected(const Moment& moment) {
  const Fault fault = struck_.at(moment.job);
  const auto& topology = controller_.state().inventory.topology();
  switch (fault.scope) {
    case Fault::Scope::kHost:
      apply(controller::SetHealth{name(fault.host), fleet::Health::kLost});
      break;
    case Fault::Scope::kDomain: {
      const fleet::Domain domain = topology.domain(topology.domain_of(fault.host));
      for (std::uint32_t i = 0; i < domain.hosts; ++i)
        apply(controller::SetHealth{name(HostId{index(domain.first) + i}), fleet::Health::kLost});
      break;
    }
    case Fault::Scope::kGpu:
      apply(controller::SetCondition{{name(fault.host)}, controller::HostVerb::kFail, {fault.gpu}, std::string(fault.cause)});
      break;
    default:
      apply(controller::SetCondition{{name(fault.host)}, controller::HostVerb::kDrain, {}, std::string(fault.cause)});
  }
  push(What::kRepaired, now_ms_ + fault.repair_ms, {.job = moment.job});
}

void World::repaired(const Moment& moment) {
  const Fault fault = struck_.at(moment.job);
  struck_.erase(moment.job);
  const auto& inventory = controller_.state().inventory;
  const auto back = [&](HostId host) {
    if (--down_[index(host)] > 0) return;
    if (inventory.host(host).condition == fleet::Condition::kQuarantined)
      apply(controller::SetCondition{{name(host)}, controller::HostVerb::kReturn, {}, "repaired"});
    apply(controller::SetHealth{name(host), fleet::Health::kHealthy});
  };
  switch (fault.scope) {
    case Fault::Scope::kHost:
      return back(fault.host);
    case Fault::Scope::kDomain: {
      const fleet::Domain domain = inventory.topology().domain(inventory.topology().domain_of(fault.host));
      for (std::uint32_t i = 0; i < domain.hosts; ++i) back(HostId{index(domain.first) + i});
      return;
    }
    case Fault::Scope::kGpu:
      apply(controller::SetCondition{{name(fault.host)}, controller::HostVerb::kReturn, {fault.gpu}, "repaired"});
      return;
    default:
      apply(controller::SetCondition{{name(fault.host)}, controller::HostVerb::kReturn, {}, "work on it is done"});
  }
}

}  // namespace capstan::sim

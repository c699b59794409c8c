// How it works: sums and lists as they come; curves are taken from the controller's state at each sample.
#include "sim/books.h"

#include <algorithm>

#include "controller/planner.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;

struct Room {
  std::int64_t domains = 0;  // that are wholly idle
  std::int64_t gpus = 0;     // in them
  std::int64_t free = 0;     // of all usable hosts
};
Room room_of(const scheduler::Inventory& inventory) {
  const auto& topology = inventory.topology();
  Room out;
  for (std::uint32_t i = 0; i < topology.domains(); ++i) {
    const fleet::Domain& domain = topology.domain(fleet::DomainId{i});
    if (inventory.capacity(domain.first).gpus == 0) continue;
    bool whole = true;
    std::int64_t gpus = 0;
    for (std::uint32_t at = 0; at < domain.hosts; ++at) {
      const fleet::HostId host{fleet::index(domain.first) + at};
      whole = whole && inventory.idle(host) && inventory.usable(host);
      if (inventory.usable(host)) gpus += inventory.room(host).gpus;
    }
    out.free += gpus;
    out.domains += whole;
    out.gpus += whole ? gpus : 0;
  }
  return out;
}

// Replicas that serve, of those that are wanted, in percent; -1: there are no services.
std::int64_t served_percent(const controller::State& state) {
  std::int64_t wanted = 0, ready = 0;
  for (const auto& [id, workload] : state.workloads) {
    if (workload.spec.kind != workload::Kind::kService || controller::has_ended(workload.state)) continue;
    wanted += workload.spec.replicas;
    std::int64_t serve = 0;
    for (const auto& [index, replica] : workload.service.replicas) serve += replica.rank.ready;
    ready += std::min(serve, workload.spec.replicas);
  }
  return wanted == 0 ? -1 : ready * 100 / wanted;
}

std::int64_t gpus_usable(const scheduler::Inventory& inventory) {
  std::int64_t count = 0;
  for (std::uint32_t i = 0; i < inventory.hosts(); ++i) {
    const fleet::HostId host{i};
    if (inventory.host(host).health == fleet::Health::kHealthy) count += inventory.capacity(host).gpus;
  }
  return count;
}

std::int64_t last_of(const std::vector<std::int64_t>& values) { return values.empty() ? 0 : values.back(); }

}  // namespace

std::uint32_t Books::kind(const std::string& name) {
  for (std::uint32_t i = 0; i < kinds_.size(); ++i) {
    if (kinds_[i].name == name) return i;
  }
  Kind fresh;
  fresh.name = name;
  fresh.curve.assign(times_.size(), 0);
  kinds_.push_back(std::move(fresh));
  return static_cast<std::uint32_t>(kinds_.size() - 1);
}

void Books::attempt(std::uint32_t kind, const Attempt& attempt) {
  Attempt& sum = kinds_[kind].sum;
  sum.wall_ms += attempt.wall_ms * attempt.gpus;
  sum.useful_ms += attempt.useful_ms * attempt.gpus;
  sum.lost_ms += attempt.lost_ms * attempt.gpus;
}

void Books::failure(std::string_view cause, bool interrupted) {
  auto at = causes_.find(cause);
  if (at == causes_.end()) at = causes_.emplace(std::string(cause), Cause{}).first;
  ++at->second.failures;
  ++failures_;
  at->second.interruptions += interrupted;
}

void Books::sample(std::int64_t time_ms, const controller::State& state) {
  times_.push_back(time_ms);
  available_.push_back(gpus_usable(state.inventory));
  used_.push_back(state.inventory.total_used().gpus);
  queued_.push_back(static_cast<std::int64_t>(state.planner->queue().size()));
  running_.push_back(static_cast<std::int64_t>(state.running.size()));
  const Room room = room_of(state.inventory);
  whole_.push_back(room.domains);
  scattered_.push_back(room.free == 0 ? 0 : (room.free - room.gpus) * 100 / room.free);
  waits_.push_back(waited_ == 0 ? 0 : waited_ms_ / waited_ / 60'000);
  waited_ = waited_ms_ = 0;
  failed_.push_back(std::exchange(failures_, 0));
  std::int64_t useful = 0, lost = 0;
  for (const Kind& kind : kinds_) useful += kind.sum.useful_ms, lost += kind.sum.lost_ms;
  useful_.push_back(useful / kHourMs);
  lost_.push_back(lost / kHourMs);
  const std::int64_t served = served_percent(state);
  services_ = services_ || served >= 0;
  served_.push_back(served < 0 ? 100 : served);
  for (Kind& kind : kinds_) kind.curve.push_back(kind.gpus);
  for (const auto id : state.tenants.ids()) {
    auto& curve = tenants_[static_cast<std::uint32_t>(id)];
    curve.resize(times_.size() - 1, 0);
    curve.push_back(state.tenants.own_used(id).gpus);
  }
}

void Books::extra_charts(Results& results) const {
  const auto chart = [&](std::string title, std::string note, std::vector<Series> series) {
    results.charts.push_back({std::move(title), std::move(note), false, times_, std::move(series)});
  };
  chart("Waits", "Mean wait of what has started since the point before.", {{"mean wait", "min", waits_}});
  chart("GPU-hours so far", "Work that was kept and work that must be done again, as attempts end.",
        {{"useful", "GPU-hours", useful_}, {"done again", "GPU-hours", lost_}});
  chart("Fragmentation", "Free GPUs in NVLink domains that are partly used: of no use to a gang that needs a whole one.",
        {{"of the free GPUs", "%", scattered_}});
  if (!causes_.empty()) chart("Failures", "Since the point before.", {{"failures", "failures", failed_}});
  if (services_) chart("Replicas that serve", "Of those that services want.", {{"ready", "%", served_}});
}

void Books::fill(Results& results, const controller::State& state) {
  const auto chart = [&](std::string title, std::string note, bool stacked) -> Chart& {
    results.charts.push_back({std::move(title), std::move(note), stacked, times_, {}});
    return results.charts.back();
  };
  Chart& kinds = chart("GPUs in use by kind of work", "Whole GPUs held, at each sample.", true);
  for (const Kind& kind : kinds_) {
    if (std::any_of(kind.curve.begin(), kind.curve.end(), [](std::int64_t gpus) { return gpus > 0; }))
      kinds.series.push_back({kind.name, "GPUs", kind.curve});
  }
  Chart& tenants = chart("GPUs in use by tenant", "What each tenant's own work holds.", true);
  for (auto& [id, curve] : tenants_) {
    curve.resize(times_.size(), 0);
    if (std::any_of(curve.begin(), curve.end(), [](std::int64_t gpus) { return gpus > 0; }))
      tenants.series.push_back({state.tenants.name(scheduler::TenantId{id}), "GPUs", curve});
  }
  Chart& fleet = chart("Fleet", "GPUs of hosts that are up, and those in use.", false);
  fleet.series = {{"up", "GPUs", available_}, {"in use", "GPUs", used_}};
  Chart& queue = chart("Queue", "Workloads that wait for room, and that run.", false);
  queue.series = {{"waiting", "workloads", queued_}, {"running", "workloads", running_}};
  Chart& whole =
      chart("Whole UltraServers and GPU hosts that are idle", "Room for gangs that need a whole NVLink domain.", false);
  whole.series = {{"whole and idle", "domains", whole_}};

  extra_charts(results);

  auto& totals = results.totals;
  if (services_ && !served_.empty()) {
    std::int64_t sum = 0;
    for (const std::int64_t percent : served_) sum += percent;
    totals["replicas_serving_milli"] = sum * 10 / static_cast<std::int64_t>(served_.size());
  }
  Attempt all;
  Table work{"Work by kind", {"GPU-hours held", "useful", "done again", "overhead", "completed", "mean wait", "p99 wait"}, {}};
  for (Kind& kind : kinds_) {
    results.distributions.push_back(distribution("wait of " + kind.name, kind.waits));
    const Distribution waits = results.distributions.back();
    results.distributions.push_back(distribution("completion of " + kind.name, kind.completions));
    all.wall_ms += kind.sum.wall_ms;
    all.useful_ms += kind.sum.useful_ms;
    all.lost_ms += kind.sum.lost_ms;
    const auto hours = [](std::int64_t gpu_ms) { return std::to_string(gpu_ms / kHourMs); };
    const auto seconds = [](std::int64_t ms) { return fmt::format("{}.{:03} s", ms / 1000, ms % 1000); };
    work.rows.push_back({kind.name,
                         {hours(kind.sum.wall_ms), hours(kind.sum.useful_ms), hours(kind.sum.lost_ms),
                          hours(kind.sum.wall_ms - kind.sum.useful_ms - kind.sum.lost_ms),
                          std::to_string(kind.completions.size()), seconds(waits.mean), seconds(waits.p99)}});
  }
  results.tables.push_back(std::move(work));
  if (!causes_.empty()) {
    Table failures{"Failures by cause", {"failures", "interrupted work"}, {}};
    std::int64_t sum = 0, interruptions = 0;
    for (const auto& [cause, one] : causes_) {
      failures.rows.push_back({cause, {std::to_string(one.failures), std::to_string(one.interruptions)}});
      sum += one.failures;
      interruptions += one.interruptions;
    }
    totals["failures"] = sum;
    totals["interruptions"] = interruptions;
    results.tables.push_back(std::move(failures));
  }
  for (const auto& [name, count] : counts_) totals[name] = count;
  std::int64_t up = 0, held = 0;
  for (std::size_t i = 0; i + 1 < times_.size(); ++i) {
    up += available_[i] * (times_[i + 1] - times_[i]) / 1000;
    held += used_[i] * (times_[i + 1] - times_[i]) / 1000;
  }
  totals["gpus"] = state.inventory.total().gpus;
  totals["gpu_hours_up"] = up / 3600;
  totals["gpu_hours_held"] = held / 3600;
  totals["gpu_hours_useful"] = all.useful_ms / kHourMs;
  totals["gpu_hours_lost"] = all.lost_ms / kHourMs;
  totals["occupancy_milli"] = up == 0 ? 0 : held * 1000 / up;
  // Useful work of what gangs and replicas held.
  totals["goodput_milli"] = all.wall_ms == 0 ? 0 : all.useful_ms / std::max<std::int64_t>(1, all.wall_ms / 1000);
  totals["waiting_at_end"] = last_of(queued_);
  totals["running_at_end"] = last_of(running_);
}

}  // namespace capstan::sim

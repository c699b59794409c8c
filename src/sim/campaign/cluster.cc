// How it works: each step delivers the messages that are due, lets every host act, and gives the controller a
// turn: detector, timers, commit, answers. What hosts do: cluster_hosts.cc; what is checked:
// cluster_checks.cc; plans: plan.cc.
#include "sim/campaign/cluster.h"

#include <algorithm>

#include "workload/fleet_yaml.h"

namespace capstan::sim::campaign {

using controller::Controller;
using controller::Sessions;

namespace {

constexpr Sessions::Limits kLimits{
    .suspect_after_ms = 10'000, .lost_after_ms = 30'000, .long_poll_ms = 5'000};

}  // namespace

Cluster::Cluster(Plan plan, bool acknowledges_early)
    : plan_(std::move(plan)), early_(acknowledges_early), net_(Prng::at(plan_.seed, 7)) {
  Prng prng(Prng::at(plan_.seed, 1));
  const std::int64_t domains = prng.between(1, 3), spares = prng.between(0, 1), cpus = prng.between(1, 2);
  const auto fleet = workload::parse_fleet(
      fmt::format(
          "fleet: f\nclasses: [{{name: tray, cpus: 16, memory: 64Gi, gpus: 4, gpu_model: g}}, {{name: cpu, "
          "cpus: 32, memory: "
          "64Gi}}]\nregions: [{{name: r, clusters: [{{name: c, blocks: [{{name: b, ultraservers: [{{class: "
          "tray, trays: 4, "
          "count: {}, spares: {}, name: u#}}], hosts: [{{class: cpu, count: {}, name: p#}}]}}]}}]}}]\n",
          domains, spares, cpus),
      "f");
  CAPSTAN_ASSERT(fleet.has_value());
  recover();
  feed(controller::ApplyFleet{*fleet, false}).value();
  controller::SetTenants tenants;
  tenants.tenants.push_back({.name = "limited", .gpus_max = 8});
  tenants.tenants.push_back({.name = "owner", .guaranteed = {.gpus = 8}});
  tenants.tenants.push_back({.name = "cells", .cells = {{.gpu_model = "g", .trays = 3, .count = 1}}});
  feed(std::move(tenants)).value();
  constexpr const char* kOrders[] = {"fair-share", "fair-share", "fifo", "sjf", "srtf", "srsf"};
  feed(controller::SetPolicy{kOrders[prng.below(6)], -1}).value();
  commit();
  const auto& topology = controller_->state().inventory.topology();
  for (std::uint32_t i = 0; i < topology.hosts(); ++i) {
    Host host;
    host.name = topology.name(fleet::HostId{i});
    host.capacity = topology.host_class(fleet::HostId{i}).capacity;
    host.incarnation = host.name + "-1";
    host.incarnations = 1;
    hosts_.push_back(std::move(host));
  }
}

Cluster::~Cluster() = default;

Verdict Cluster::run() {
  std::size_t next = 0;
  for (; failure_.empty() && now_ms_ < kFaultsMs; step()) {
    while (next < plan_.ops.size() && plan_.ops[next].at_ms <= now_ms_) act(plan_.ops[next++]);
  }
  // Everything heals; whoever can run must run, and end.
  bad_net_until_ms_ = 0;
  tear_next_ = false;  // what is said from here on must hold
  for (Host& host : hosts_) {
    host.cut_until_ms = host.slow_until_ms = 0;
    host.back_ms = std::min(host.back_ms, now_ms_);
    host.worker_back_ms = std::min(host.worker_back_ms, now_ms_);
  }
  back_ms_ = std::min(back_ms_, now_ms_);
  for (int i = 0; i < 400 && failure_.empty(); ++i) step();
  for (const Host& host : hosts_) {
    if (!failure_.empty() || controller_ == nullptr) break;
    controller::SetCondition back{{host.name}, controller::HostVerb::kReturn, {}, ""};
    for (std::int64_t gpu = 0; gpu < host.capacity.gpus; ++gpu) back.gpus.push_back(gpu);
    (void)feed(controller::SetCondition{{host.name}, controller::HostVerb::kUncordon, {}, ""});
    if (!back.gpus.empty()) (void)feed(back);
    (void)feed(controller::SetCondition{{host.name}, controller::HostVerb::kReturn, {}, ""});
  }
  for (const auto& [name, tenant] : tenant_of_) {
    const auto* workload = controller_ == nullptr ? nullptr : controller_->state().find(name);
    if (workload != nullptr && workload->spec.kind == workload::Kind::kService)
      (void)feed(controller::Cancel{name});
  }
  for (const std::int64_t end_ms = now_ms_ + kQuietMs; failure_.empty() && now_ms_ < end_ms && !all_ended();)
    step();
  if (failure_.empty() && !all_ended()) {
    std::string waits;
    for (const auto& [id, workload] : controller_->state().workloads) {
      if (!has_ended(workload.state))
        waits += " " + workload.spec.name + " (" + std::string(state_name(workload.state)) + ")";
    }
    fail("faults stopped, and these never ended:" + waits);
  }
  Verdict out;
  if (failure_.empty()) {
    crash(true);
    recover();
    check_promises();
  }
  out.failure = failure_;
  out.at_ms = now_ms_;
  out.state_hash = controller_ == nullptr ? "" : controller_->state_hash();
  out.probes = std::move(probes_);
  if (!failure_.empty()) out.history.assign(history_.begin(), history_.end());
  return out;
}

void Cluster::step() {
  now_ms_ += kStepMs;
  deliver();
  for (std::size_t at = 0; at < hosts_.size(); ++at) step_host(at);
  if (controller_ == nullptr && now_ms_ >= back_ms_) recover();
  if (controller_ != nullptr) turn();
  if (now_ms_ % 2'000 == 0) check_hosts();
}

Result<Json> Cluster::feed(decltype(controller::Input::what) what) {
  const controller::Input input{unix_ms(), std::move(what)};
  // What the journal keeps must read back as what was said.
  const auto read = controller::Input::from_json(input.time_ms, input.to_json());
  if (!read || read->to_json().dump() != input.to_json().dump())
    fail("an input does not survive the journal");
  auto outcome = controller_->apply(input);
  if (!outcome.events.empty()) {
    Row row{outcome.time_ms, {}};
    for (const Json& event : outcome.events) row.events.push_back(event.dump());
    batch_.push_back(std::move(row));
  }
  check_events(outcome);
  effects_.insert(effects_.end(), outcome.effects.begin(), outcome.effects.end());
  return std::move(outcome.answer);
}

void Cluster::turn() {
  const auto feed_one = [this](decltype(controller::Input::what) what) { (void)feed(std::move(what)); };
  sessions_->detect(controller_->state(), now_ms_, feed_one);
  if (controller_->next_deadline_ms() <= unix_ms()) (void)feed(controller::Tick{});
  if (tear_next_ && !batch_.empty()) {
    tear_next_ = false;
    crash(net_.below(2) == 0);
    back_ms_ = now_ms_ + net_.between(1, 20) * 1'000;
    return;
  }
  commit();
}

// The fsync returns; only now may anything leave.
void Cluster::commit() {
  disk_.insert(disk_.end(), batch_.begin(), batch_.end());
  batch_.clear();
  promised_.insert(promised_.end(), answered_.begin(), answered_.end());
  answered_.clear();
  sessions_->push(effects_);
  effects_.clear();
  sessions_->answer_due(controller_->state(), false, now_ms_);
}

void Cluster::crash(bool batch_survives) {
  if (controller_ == nullptr) return;
  note(fmt::format("the controller dies with {} rows in its batch", batch_.size()));
  if (early_) {  // the planted bug: what was not durable has left already
    promised_.insert(promised_.end(), answered_.begin(), answered_.end());
    sessions_->push(effects_);
    sessions_->answer_due(controller_->state(), false, now_ms_);
  }
  if (batch_survives) {
    disk_.insert(disk_.end(), batch_.begin(), batch_.end());
    if (!batch_.empty()) hit("a batch was durable, and nobody was told");
  } else if (!batch_.empty()) {
    hit("a batch was lost before its fsync");
    if (net_.below(2) == 0) hit("a torn row was cut off");
  }
  batch_.clear();
  answered_.clear();
  effects_.clear();
  sessions_.reset();
  controller_.reset();
}

void Cluster::recover() {
  controller_ = std::make_unique<Controller>();
  if (!snapshot_.empty()) {
    auto read = Controller::from_snapshot_text(snapshot_);
    if (!read) return fail("a snapshot cannot be read: " + read.error().message);
    *controller_ = *std::move(read);
    hit("recovered from a snapshot and its tail");
  }
  const auto replay = [&](Controller& into, std::size_t from) {
    for (std::size_t i = from; i < disk_.size(); ++i) {
      for (const std::string& event : disk_[i].events) {
        const auto folded = into.replay(disk_[i].time_ms, *Json::parse(event));
        if (!folded) return fail("a journal cannot be replayed: " + folded.error().message);
      }
    }
  };
  replay(*controller_, snapshot_rows_);
  if (!snapshot_.empty() && failure_.empty()) {
    Controller whole;
    replay(whole, 0);
    if (whole.state_hash() != controller_->state_hash())
      fail("snapshot and tail give another state than the whole journal");
  }
  sessions_ = std::make_unique<Sessions>(kLimits);
  sessions_->started(controller_->state(), now_ms_);
  if (!disk_.empty()) {
    hit("the controller recovered");
    check_promises();
  }
  (void)feed(controller::BeginEpoch{controller_->state().epoch + 1, "campaign"});
  commit();
}

void Cluster::fail(std::string why) {
  if (!failure_.empty()) return;
  failure_ = std::move(why);
  note("FAILURE: " + failure_);
}

void Cluster::note(std::string text) {
  history_.push_back(fmt::format("{:>9.1f} s  {}", static_cast<double>(now_ms_) / 1000, text));
  if (history_.size() > 200) history_.pop_front();
}

}  // namespace capstan::sim::campaign

#include "apps/up/driver_backend.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <memory>

namespace capstan::apps {

DriverBackend::DriverBackend(controller::Driver& driver, std::function<void(bool)> on_shutdown)
    : driver_(driver), on_shutdown_(std::move(on_shutdown)) {
  const auto id = driver_.follow(-1, [this](const controller::EventLine& event) {
    const std::scoped_lock lock(mutex_);
    newest_event_ = event.seq;
    changed_.notify_all();
    return true;
  });
  follow_id_ = id.value_or(0);
}

DriverBackend::~DriverBackend() {
  leave();
  driver_.unfollow(follow_id_);
}

void DriverBackend::leave() {
  const std::scoped_lock lock(mutex_);
  leaving_ = true;
  changed_.notify_all();
}

Result<Json> DriverBackend::submit(Command command) { return driver_.submit(std::move(command)).get(); }

Result<protocol::SyncAnswer> DriverBackend::sync(protocol::SyncRequest request) {
  using Answer = Result<protocol::SyncAnswer>;
  const auto promise =
      std::make_shared<std::promise<Answer>>();  // shared with the callback, which may outlive this call
  auto future = promise->get_future();
  driver_.sync(std::move(request), [promise](Answer answer) { promise->set_value(std::move(answer)); });
  try {
    Answer answer = future.get();
    if (answer) add_to_starts(answer->effects);
    return answer;
  } catch (const std::future_error&) {
    return fail(Code::kUnavailable, "the controller is leaving");
  }
}

void DriverBackend::add_to_starts(std::vector<protocol::Effect>& effects) {
  std::vector<protocol::StartRank*> sandboxes;
  for (auto& effect : effects) {
    auto* start = std::get_if<protocol::StartRank>(&effect.body);
    if (start != nullptr && start->session) sandboxes.push_back(start);
  }
  if (sandboxes.empty() || !start_sandbox_) return;
  (void)driver_.read([&](const controller::State& state) {
    for (auto* start : sandboxes) start_sandbox_(state, *start);
  });
}

Result<void> DriverBackend::read(std::function<void(const controller::State&)> callback) {
  return driver_.read(callback);
}

Result<std::vector<Json>> DriverBackend::events(std::int64_t since, std::int64_t limit) {
  CAPSTAN_TRY(const auto lines, driver_.events(since, static_cast<int>(limit)));
  std::vector<Json> out;
  for (const controller::EventLine& line : lines) {
    CAPSTAN_TRY(Json event, Json::parse(line.json));
    out.push_back(std::move(event));
  }
  return out;
}

bool DriverBackend::wait_for_event(std::int64_t since, int timeout_ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&] { return leaving_ || newest_event_ > since; });
  return !leaving_;
}

Result<void> DriverBackend::ready() {
  if (!arrived_) return fail(Code::kUnavailable, "the controller starts");
  if (driver_.status().disk_full)
    return fail(Code::kExhausted,
                "the disk of the data directory is full; commands wait, running ranks go on");
  return {};
}

void DriverBackend::shutdown(bool stop_ranks) { on_shutdown_(stop_ranks); }

controller::Served DriverBackend::served() const {
  controller::Served served;
  // A driver that is leaving serves nothing; the gateway then says so.
  (void)driver_.read([&](const controller::State& state) { served = controller::served(state); });
  return served;
}

std::vector<gateway::Replica> DriverBackend::replicas() const {
  std::vector<gateway::Replica> out;
  controller::Served all;
  std::map<std::string, std::int64_t> weights;
  (void)driver_.read([&](const controller::State& state) {
    all = controller::served(state);
    for (const auto& service : all.services) weights[service.name] = service.weight;
  });
  for (const auto& replica : all.replicas) {
    const std::string host = replica.address.empty() ? "127.0.0.1" : replica.address;
    out.push_back({.id = replica.id,
                   .model = replica.model,
                   .url = fmt::format("http://{}:{}", host, replica.port),
                   .ready = replica.ready,
                   .service = replica.service,
                   .weight = weights[replica.service],
                   .hedge_after_ms = replica.hedge_after_ms,
                   .http2 = replica.http2});
  }
  return out;
}

std::string DriverBackend::starter(const std::string& model) const {
  for (const auto& service : served().services) {
    if (service.model == model && service.autoscale) return service.name;
  }
  return {};
}

std::vector<std::pair<std::string, std::string>> DriverBackend::waiting() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& service : served().services) {
    if (!service.why_not.empty()) out.emplace_back(service.model, service.why_not);
  }
  return out;
}

}  // namespace capstan::apps

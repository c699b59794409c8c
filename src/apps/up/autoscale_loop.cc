#include "apps/up/autoscale_loop.h"

#include <chrono>
#include <set>

#include "base/log.h"
#include "base/steady_time.h"

namespace capstan::apps {

AutoscaleLoop::AutoscaleLoop(DriverBackend& backend, const gateway::ServiceWatch& watch)
    : backend_(backend), watch_(watch), thread_([this] { run(); }) {}

AutoscaleLoop::~AutoscaleLoop() {
  {
    const std::scoped_lock lock(mutex_);
    leaving_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void AutoscaleLoop::run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return leaving_; })) {
    lock.unlock();
    step();
    lock.lock();
  }
}

void AutoscaleLoop::step() {
  std::set<std::string> seen;
  for (const controller::ServedService& service : backend_.served().services) {
    if (!service.autoscale) continue;
    seen.insert(service.name);
    const auto& spec = *service.autoscale;
    const routing::AutoscalePolicy policy{.min = spec.min,
                                          .max = spec.max,
                                          .ttft_ms = spec.ttft_ms,
                                          .tpot_ms = spec.tpot_ms,
                                          .calm_ms = spec.calm_ms};
    auto& scaler = scalers_.try_emplace(service.name, policy).first->second;
    scaler.set_policy(policy);
    routing::ServiceLoad load = watch_.load(service.name, steady_now_ms());
    load.wanted = service.wanted;
    load.ready = service.ready;
    const auto next = scaler.step(steady_now_ms(), load);
    if (!next) continue;
    const auto scaled = backend_.submit(controller::Scale{service.name, next->replicas, next->why});
    if (scaled) {
      log_info("autoscale", "service={} replicas={} from={} why=\"{}\"", service.name, next->replicas,
               service.wanted, next->why);
    } else {
      log_warn("autoscale", "service={} replicas={} refused: {}", service.name, next->replicas,
               scaled.error().message);
    }
  }
  std::erase_if(scalers_, [&](const auto& entry) { return !seen.contains(entry.first); });
}

}  // namespace capstan::apps

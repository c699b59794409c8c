// How it works: every so often each service's wanted replicas are worked out from the curve at its own hour and a little noise, a
// pure function of seed, service and step; an arrival goes out where they differ from before.
#include <algorithm>

#include "base/prng.h"
#include "sim/generators.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kHourMs = 3'600'000;

class ServiceSource : public ArrivalSource {
 public:
  ServiceSource(InferenceServices services, Window window, std::uint64_t seed)
      : services_(std::move(services)),
        window_(window),
        seed_(seed),
        step_ms_(window.from_ms),
        replicas_(static_cast<std::size_t>(services_.count), -1) {
    CAPSTAN_ASSERT(services_.every_ms >= 1 && services_.replicas_min >= 0 && services_.replicas_min <= services_.replicas_max);
    services_.pattern.gpus_per_rank = std::max(services_.gpus, services_.pattern.gpus_per_rank);  // a replica is one rank
  }

  std::optional<Arrival> next() override {
    for (; step_ms_ < window_.until_ms; step_ms_ += services_.every_ms, ++step_, service_ = 0) {
      for (; service_ < replicas_.size(); ++service_) {
        const std::int64_t wanted = replicas_at(service_);
        if (wanted == replicas_[service_]) continue;
        const bool first = replicas_[service_] < 0;
        replicas_[service_] = wanted;
        return arrival(service_++, wanted, first);
      }
    }
    return std::nullopt;
  }

 private:
  std::int64_t replicas_at(std::size_t service) const {
    const std::uint64_t own = Prng::at(seed_, service);
    // People of one place do not all use the same service at the same minute: up to an hour apart.
    const auto shift_ms = static_cast<std::int64_t>(Prng::at(own, 0) % static_cast<std::uint64_t>(kHourMs));
    Prng prng(Prng::at(own, 1 + static_cast<std::uint64_t>(step_)));
    const std::int64_t noise = prng.between(-services_.noise_milli, services_.noise_milli);
    const std::int64_t share = share_of_day(services_.curve, step_ms_ + shift_ms) * (1000 + noise);  // of a million
    const std::int64_t above = ((services_.replicas_max - services_.replicas_min) * share + 500'000) / 1'000'000;
    return std::clamp(services_.replicas_min + above, services_.replicas_min, services_.replicas_max);
  }

  Arrival arrival(std::size_t service, std::int64_t replicas, bool first) const {
    Arrival out = make_job(services_.pattern, fmt::format("{}-{}", services_.pattern.kind, service), {.gpus = services_.gpus});
    out.time_ms = step_ms_;
    out.spec.kind = workload::Kind::kService;
    out.spec.ranks = 1;
    out.spec.ranks_min = 0;
    out.spec.placement.segment = 0;
    out.spec.time_limit_ms = 0;
    out.spec.checkpoint = {};
    out.spec.replicas = replicas;
    out.behaviour.work_ms = 0;
    if (first && window_.ends_services) out.behaviour.withdrawn_after_ms = window_.until_ms - step_ms_;
    return out;
  }

  InferenceServices services_;
  Window window_;
  std::uint64_t seed_;
  std::int64_t step_ms_;
  std::int64_t step_ = 0;
  std::size_t service_ = 0;
  std::vector<std::int64_t> replicas_;  // as last applied; -1: never
};

}  // namespace

std::int64_t share_of_day(const DailyCurve& curve, std::int64_t time_ms) {
  const auto hour = static_cast<std::size_t>(time_ms / kHourMs % 24);
  const std::int64_t from = curve[hour];
  const std::int64_t to = curve[(hour + 1) % 24];
  return from + (to - from) * (time_ms % kHourMs) / kHourMs;
}

std::unique_ptr<ArrivalSource> generate(InferenceServices services, Window window, std::uint64_t seed) {
  return std::make_unique<ServiceSource>(std::move(services), window, seed);
}

}  // namespace capstan::sim

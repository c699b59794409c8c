#include "routing/autoscale.h"

#include <fmt/format.h>

#include <algorithm>

namespace capstan::routing {

Autoscaler::Pressure Autoscaler::pressure(const ServiceLoad& load) const {
  Pressure worst;
  const auto consider = [&](std::string_view name, std::int64_t seen_ms, std::int64_t objective_ms) {
    if (objective_ms == 0) return;
    const std::int64_t milli = seen_ms * 1'000 / objective_ms;
    if (milli <= worst.milli) return;
    worst = {milli, fmt::format("p95 of {} is {} ms, the objective {} ms", name, seen_ms, objective_ms)};
  };
  consider("ttft", load.ttft_p95_ms, policy_.ttft_ms);
  consider("tpot", load.tpot_p95_ms, policy_.tpot_ms);
  return worst;
}

std::optional<ScaleStep> Autoscaler::up(std::int64_t now_ms, const ServiceLoad& load,
                                        const Pressure& pressure) {
  if (load.samples < kSamplesMin || pressure.milli <= 1'000) return std::nullopt;
  if (shrank_ms_ >= 0 && now_ms - shrank_ms_ <= policy_.calm_ms * calm_factor_) {
    calm_factor_ = std::min(calm_factor_ * 2, kCalmFactorMax);
    shrank_ms_ = -1;
  }
  if (load.wanted >= policy_.max || settled_since_ms_ < 0 || now_ms - settled_since_ms_ < kSettleMs)
    return std::nullopt;
  const std::int64_t factor_milli = std::min<std::int64_t>(pressure.milli, 2'000);
  const std::int64_t replicas = std::min(policy_.max, (load.wanted * factor_milli + 999) / 1'000);
  settled_since_ms_ = -1;
  return ScaleStep{replicas, pressure.why};
}

std::optional<ScaleStep> Autoscaler::down(std::int64_t now_ms, const ServiceLoad& load,
                                          const Pressure& pressure) {
  if (load.wanted <= policy_.min) return std::nullopt;
  if (quiet_since_ms_ >= 0 && now_ms - quiet_since_ms_ >= policy_.calm_ms) {
    return ScaleStep{policy_.min, fmt::format("no request for {} s", (now_ms - quiet_since_ms_) / 1'000)};
  }
  // Without a sample nobody knows how those under way fare.
  const bool known = load.samples > 0 || load.requests + load.under_way == 0;
  const bool calm = load.waiting == 0 && known && pressure.milli <= 500;
  if (!calm) {
    calm_since_ms_ = -1;
    return std::nullopt;
  }
  if (calm_since_ms_ < 0) calm_since_ms_ = now_ms;
  // The last replica goes only when nobody comes.
  if (load.wanted <= std::max<std::int64_t>(policy_.min, 1) ||
      now_ms - calm_since_ms_ < policy_.calm_ms * calm_factor_)
    return std::nullopt;
  calm_since_ms_ = now_ms;
  shrank_ms_ = now_ms;
  return ScaleStep{load.wanted - 1, fmt::format("calm for {} s: {}", policy_.calm_ms * calm_factor_ / 1'000,
                                                pressure.why.empty() ? "hardly a request" : pressure.why)};
}

std::optional<ScaleStep> Autoscaler::step(std::int64_t now_ms, const ServiceLoad& load) {
  const bool quiet = load.requests == 0 && load.under_way == 0;
  if (!quiet) quiet_since_ms_ = -1;
  if (quiet && quiet_since_ms_ < 0) quiet_since_ms_ = now_ms;
  const bool settled = load.ready >= load.wanted;
  if (!settled) settled_since_ms_ = -1;
  if (settled && settled_since_ms_ < 0) settled_since_ms_ = now_ms;
  if (load.wanted < policy_.min) return ScaleStep{policy_.min, "the minimum"};
  if (load.wanted > policy_.max) return ScaleStep{policy_.max, "the maximum"};
  if (load.wanted == 0)
    return load.waiting > 0 ? std::optional(ScaleStep{1, "a request waits and there is no replica"})
                            : std::nullopt;
  const Pressure now = pressure(load);
  if (auto more = up(now_ms, load, now)) {
    calm_since_ms_ = -1;
    return more;
  }
  return down(now_ms, load, now);
}

}  // namespace capstan::routing

// How it works: one job of the trace after the other, shaped by the template; names are "<kind>-<row of the file>".
#include <algorithm>

#include "base/assert.h"
#include "sim/traces.h"

namespace capstan::sim {
namespace {

std::int64_t percent_of(std::int64_t value, std::int64_t percent) {
  return static_cast<std::int64_t>(static_cast<__int128>(value) * percent / 100);
}

class Replay : public ArrivalSource {
 public:
  Replay(std::shared_ptr<const Trace> trace, TraceReplay options) : trace_(std::move(trace)), options_(std::move(options)) {}

  std::optional<Arrival> next() override {
    if (at_ == trace_->jobs.size()) return std::nullopt;
    const TraceJob& job = trace_->jobs[at_++];
    JobSize size = job.size;
    size.work_ms = percent_of(size.work_ms, options_.durations_percent);
    size.estimate_ms = options_.own_estimates ? percent_of(size.estimate_ms, options_.durations_percent) : 0;
    Arrival out = make_job(options_.pattern, fmt::format("{}-{}", options_.pattern.kind, job.row), size);
    out.time_ms = options_.starts_at_ms + percent_of(job.submit_ms, options_.arrivals_percent);
    if (options_.owners_are_tenants) out.spec.tenant = tenant_of(options_, job.owner);
    if (!job.gpu_model.empty()) out.spec.placement.gpu_model = job.gpu_model;
    if (options_.models_from_trace) out.behaviour.model = job.model;
    return out;
  }

 private:
  std::shared_ptr<const Trace> trace_;  // other runs of a comparison read it too
  TraceReplay options_;
  std::size_t at_ = 0;
};

}  // namespace

std::string tenant_of(const TraceReplay& replay, const std::string& owner) {
  if (owner.empty()) return replay.pattern.spec.tenant;
  const auto named = replay.tenants.find(owner);
  return named != replay.tenants.end() ? named->second : label_of(replay.tenant_prefix + owner);
}

std::unique_ptr<ArrivalSource> replay(std::shared_ptr<const Trace> trace, TraceReplay options) {
  CAPSTAN_ASSERT(trace != nullptr);
  return std::make_unique<Replay>(std::move(trace), std::move(options));
}

}  // namespace capstan::sim

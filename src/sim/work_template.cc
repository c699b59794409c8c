// How it works: the ranks of a job are alike, so a job has as many GPUs a rank as divide its GPUs and fit.
#include "sim/work_template.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kWorkMaxMs = 1LL << 52;  // far more than a century; sums of it do not overflow

std::int64_t largest_divisor(std::int64_t value, std::int64_t at_most) {
  for (std::int64_t divisor = std::min(value, at_most); divisor > 1; --divisor) {
    if (value % divisor == 0) return divisor;
  }
  return 1;
}

// What the work takes from its placement to its end if nothing happens.
std::int64_t whole_run_ms(const workload::Spec& spec, const Behaviour& behaviour) {
  std::int64_t out = behaviour.work_ms + behaviour.start_ms;
  if (spec.checkpoint.interval_ms > 0) out += behaviour.work_ms / spec.checkpoint.interval_ms * behaviour.checkpoint_stall_ms;
  return out;
}

void set_ranks(const WorkTemplate& pattern, const JobSize& size, workload::Spec& spec) {
  workload::Resources& each = spec.resources;
  std::int64_t cpus_of_job = size.milli_cpus;
  std::int64_t memory_of_job = size.memory_bytes;
  if (size.gpus > 0) {
    const std::int64_t gpus = std::min(size.gpus, workload::kRanksMax);
    const std::int64_t per_rank = std::clamp<std::int64_t>(pattern.gpus_per_rank, 1, workload::kGpusMax);
    each.gpus = largest_divisor(gpus, per_rank);
    each.gpu_milli = 0;
    spec.ranks = gpus / each.gpus;
    each.milli_cpus = pattern.milli_cpus_per_gpu * each.gpus;
    each.memory_bytes = pattern.memory_bytes_per_gpu * each.gpus;
  } else {
    spec.ranks = std::clamp<std::int64_t>(size.ranks, 1, workload::kRanksMax);
    each.gpus = 0;
    each.gpu_milli = size.gpu_milli;
    if (size.gpu_milli > 0) {
      spec.ranks = 1;
      each.milli_cpus = pattern.milli_cpus_per_gpu * size.gpu_milli / 1000;
      each.memory_bytes = pattern.memory_bytes_per_gpu / 1000 * size.gpu_milli;
    }
  }
  if (cpus_of_job >= 0) each.milli_cpus = cpus_of_job / spec.ranks;
  if (memory_of_job >= 0) each.memory_bytes = memory_of_job / spec.ranks;
}

}  // namespace

Arrival make_job(const WorkTemplate& pattern, std::string name, const JobSize& size) {
  Arrival out;
  out.kind = pattern.kind;
  out.spec = pattern.spec;
  out.behaviour = pattern.behaviour;
  out.spec.kind = workload::Kind::kJob;
  out.spec.name = std::move(name);
  out.behaviour.work_ms = std::clamp<std::int64_t>(size.work_ms, 1, kWorkMaxMs);
  set_ranks(pattern, size, out.spec);
  out.spec.placement.segment = std::min(out.spec.placement.segment, out.spec.ranks);
  if (out.spec.ranks_min >= out.spec.ranks) out.spec.ranks_min = 0;
  if (size.estimate_ms > 0) {
    out.spec.time_limit_ms = std::min(size.estimate_ms, kWorkMaxMs);
  } else if (pattern.estimate_percent > 0) {
    const __int128 whole = whole_run_ms(out.spec, out.behaviour);
    const __int128 told = whole * pattern.estimate_percent / 100 + pattern.estimate_slack_ms;
    out.spec.time_limit_ms = static_cast<std::int64_t>(std::min<__int128>(told, kWorkMaxMs));
  }
  return out;
}

std::string label_of(std::string_view text) {
  std::string out;
  for (const char c : to_lower(text)) {
    const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (out.size() < workload::kNameLengthMax) out += fits ? c : '-';
  }
  while (out.ends_with('-')) out.pop_back();
  out.erase(0, std::min(out.find_first_not_of('-'), out.size()));
  return out.empty() ? "unnamed" : out;
}

}  // namespace capstan::sim

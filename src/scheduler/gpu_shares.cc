// How it works: a job has a share on each of its GPUs, known or not; the rest goes first to GPUs that it has
// alone, then to those with most that is not accounted for.
#include "scheduler/gpu_shares.h"

namespace capstan::scheduler {

void divide_shares(const Inventory& inventory, HostId host,
                   std::array<std::int64_t, fleet::kGpusPerHostMax> used, std::vector<ShareHolder>& holders) {
  const auto give = [&](ShareHolder& holder, std::size_t gpu) {
    if (holder.ranks == 0 || (holder.gpus >> gpu & 1) == 0 || used[gpu] < holder.share) return false;
    --holder.ranks;
    ++holder.counts[gpu];
    used[gpu] -= holder.share;
    return true;
  };
  for (ShareHolder& holder : holders) {
    for (std::size_t gpu = 0; gpu < used.size(); ++gpu) {
      if ((holder.known >> gpu & 1) == 0) give(holder, gpu);
    }
  }
  for (ShareHolder& holder : holders) {
    GpuSet others = 0;
    for (const auto& other : inventory.host(host).holders) {
      if (other.job != holder.job) others |= other.gpus;
    }
    for (std::size_t gpu = 0; gpu < used.size(); ++gpu) {
      while ((others >> gpu & 1) == 0 && give(holder, gpu)) continue;
    }
  }
  for (ShareHolder& holder : holders) {
    while (holder.ranks > 0) {
      std::size_t most = used.size();
      for (std::size_t gpu = 0; gpu < used.size(); ++gpu) {
        const bool may = (holder.gpus >> gpu & 1) != 0 && used[gpu] >= holder.share;
        if (may && (most == used.size() || used[gpu] > used[most])) most = gpu;
      }
      if (most == used.size() || !give(holder, most)) break;
    }
  }
}

}  // namespace capstan::scheduler

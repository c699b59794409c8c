// GpuShares: which GPUs of a host the shares of several jobs are on, as far as their holders tell.
//
// An inventory keeps, for each job on a host, its ranks and the set of GPUs that they are on, and for each
// GPU what is free: not how many shares of which job are on which GPU. Here that is worked out. Exact for a
// GPU that one job has alone; where jobs share GPUs, a division that never gives a GPU more than is used of
// it. Cost: O(holders × GPUs).  Pure.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "scheduler/inventory.h"

namespace capstan::scheduler {

using ShareCounts = std::array<std::uint32_t, fleet::kGpusPerHostMax>;

struct ShareHolder {
  std::int64_t job = 0;
  std::int64_t share = 0;   // thousandths
  std::uint32_t ranks = 0;  // to be divided
  GpuSet gpus = 0;          // that the job is on
  GpuSet known = 0;         // of them: those where other ranks of it are known to be
  ShareCounts counts{};     // the result; their sum is less than `ranks` where the rest cannot be told
};

// `used`: of each GPU of the host, what is used of it and not known otherwise (thousandths).
void divide_shares(const Inventory& inventory, HostId host,
                   std::array<std::int64_t, fleet::kGpusPerHostMax> used, std::vector<ShareHolder>& holders);

}  // namespace capstan::scheduler

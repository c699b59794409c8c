// Log retention: the logs of the newest jobs are kept, older ones removed. (Each rank's own log is bounded
// too, shim/rotating_log.h.)
#pragma once

#include <cstdint>
#include <set>

namespace capstan::worker {

inline constexpr int kLoggedJobsMax = 2000;  // twice what the controller remembers

// Removes the logs of all but the `keep` newest jobs (highest ids), and never those of `known` ones. Entries
// that are not named like a job are left alone. Returns how many jobs' logs were removed. Threads: any. Cost:
// one directory listing; removal of what goes.
int prune_logs(int logs_fd, int keep, const std::set<std::int64_t>& known);

}  // namespace capstan::worker

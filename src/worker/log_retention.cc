// How it works: names that are numbers, sorted; the removal goes through the directory's descriptor, not its
// name.
#include "worker/log_retention.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/text.h"

namespace capstan::worker {

int prune_logs(int logs_fd, int keep, const std::set<std::int64_t>& known) {
  const std::filesystem::path logs = "/proc/self/fd/" + std::to_string(logs_fd);
  std::vector<std::int64_t> jobs;
  std::error_code error;
  for (std::filesystem::directory_iterator it(logs, error), end; !error && it != end; it.increment(error)) {
    if (const auto job = parse_int(it->path().filename().string())) jobs.push_back(*job);
  }
  if (jobs.size() <= static_cast<std::size_t>(keep)) return 0;
  std::sort(jobs.begin(), jobs.end());
  jobs.resize(jobs.size() - static_cast<std::size_t>(keep));
  int removed = 0;
  for (const std::int64_t job : jobs) {
    if (known.contains(job)) continue;
    std::filesystem::remove_all(logs / std::to_string(job), error);
    removed += !error;
  }
  return removed;
}

}  // namespace capstan::worker

#include "worker/host_resources.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/cpus.h"
#include "base/file.h"
#include "base/text.h"
#include "sandbox/hierarchy.h"

namespace capstan::worker {
namespace {

std::int64_t total_memory_bytes() {
  const auto text = read_file("/proc/meminfo");
  if (text) {
    for (const auto line : split(*text, '\n')) {
      if (!line.starts_with("MemTotal:")) continue;
      const auto value = trim(line.substr(9, line.size() - 9 - 2));  // "  16384 kB"
      if (const auto kib = parse_int(value)) return *kib * 1024;
    }
  }
  return static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
}

std::int64_t count_gpus() {
  std::int64_t count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/dev", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("nvidia") && parse_int(std::string_view(name).substr(6))) ++count;
  }
  return count;
}

}  // namespace

Json HostResources::to_json() const {
  return Json::object({{"milli_cpus", milli_cpus}, {"memory_bytes", memory_bytes}, {"gpus", gpus}});
}

std::int64_t offered_memory_bytes(std::int64_t total_bytes) {
  const std::int64_t reserve =
      std::clamp<std::int64_t>(total_bytes / 16, std::int64_t{128} << 20, std::int64_t{2} << 30);
  return std::max<std::int64_t>(total_bytes - reserve, 0);
}

HostResources host_resources() {
  const auto hierarchies = sandbox::find_hierarchies();
  HostResources resources;
  resources.milli_cpus = std::int64_t{1000} * usable_cpus();
  if (const auto limit = sandbox::own_cpu_limit_milli(hierarchies))
    resources.milli_cpus = std::min(resources.milli_cpus, *limit);
  std::int64_t memory = total_memory_bytes();
  if (const auto limit = sandbox::own_memory_limit_bytes(hierarchies)) memory = std::min(memory, *limit);
  resources.memory_bytes = offered_memory_bytes(memory);
  resources.gpus = count_gpus();
  return resources;
}

}  // namespace capstan::worker

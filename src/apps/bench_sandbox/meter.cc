#include "apps/bench_sandbox/meter.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace capstan::bench_sandbox {

double now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

namespace {

// Fields 14 to 17 of /proc/PID/stat, after the name, which may hold anything.
bool read_stat(const std::string& process, int& parent, double& own, double& children) {
  std::ifstream file("/proc/" + process + "/stat");
  std::string line;
  if (!std::getline(file, line)) return false;
  std::istringstream in(line.substr(line.rfind(')') + 1));
  std::string skipped;
  double user = 0, system = 0, children_user = 0, children_system = 0;
  in >> skipped >> parent;
  for (int i = 0; i < 9; ++i) in >> skipped;
  in >> user >> system >> children_user >> children_system;
  const double tick_ms = 1e3 / static_cast<double>(::sysconf(_SC_CLK_TCK));
  own = (user + system) * tick_ms;
  children = (children_user + children_system) * tick_ms;
  return true;
}

}  // namespace

double cpu_ms(int other_process) {
  double sum = 0, own = 0, children = 0;
  int parent = 0;
  if (read_stat("self", parent, own, children)) sum += own;
  if (read_stat(std::to_string(other_process), parent, own, children)) sum += own + children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    constexpr int kKernelThreads = 2;  // their parent
    const std::string name = entry.path().filename().string();
    if (name[0] >= '0' && name[0] <= '9' && read_stat(name, parent, own, children) &&
        parent == kKernelThreads)
      sum += own;
  }
  return sum;
}

double machine_memory_kib() {
  std::ifstream file("/proc/meminfo");
  double sum = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string name;
    double value = 0;
    in >> name >> value;
    for (const char* counted : {"AnonPages:", "Shmem:", "Slab:", "KernelStack:", "PageTables:", "Percpu:"}) {
      if (name == counted) sum += value;
    }
  }
  return sum;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

}  // namespace capstan::bench_sandbox

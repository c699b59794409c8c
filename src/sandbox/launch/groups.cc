// How it works: plain openat, read and write on cgroupfs, one write(2) per value as it demands.
#include "sandbox/launch/groups.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace capstan::sandbox {
namespace {

constexpr std::int64_t kPeriodUs = 100'000;
constexpr std::int64_t kQuotaUsMin = 1000;  // the kernel's own
// Version 2 allows processes only in groups that hand no controller on, and a sandbox's hands memory on to
// its commands' groups: its own processes are in a group of this name within it.
constexpr const char* kLeaf = "/own";

std::int64_t number_after(const std::string& text, const char* key) {
  const std::size_t at = text.find(key);
  return at == text.npos ? 0 : std::strtoll(text.c_str() + at + std::strlen(key), nullptr, 10);
}

std::int64_t number_in(const std::string& text) { return std::strtoll(text.c_str(), nullptr, 10); }

}  // namespace

bool Groups::Base::has(std::string_view controller) const {
  return std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
}

bool Groups::add_base(int version, std::vector<std::string> controllers, const std::string& directory) {
  const std::size_t slash = directory.rfind('/');
  for (const std::string& path : {directory.substr(0, slash), directory}) {
    if (::mkdir(path.c_str(), 0755) != 0 || version != 2) continue;
    const Fd control(::open((path + "/cgroup.subtree_control").c_str(), O_WRONLY | O_CLOEXEC));
    for (const auto& controller : controllers)
      (void)!::write(control.get(), ("+" + controller).data(), controller.size() + 1);
  }
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return false;
  bases_.push_back({version, std::move(controllers), std::move(fd), directory.substr(slash + 1)});
  return true;
}

void Groups::remove_bases() {
  for (const Base& base : bases_) {
    const Fd parent(::openat(base.directory.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ::unlinkat(parent.get(), base.name.c_str(), AT_REMOVEDIR);
  }
}

bool Groups::has(std::string_view controller) const {
  return std::any_of(bases_.begin(), bases_.end(), [&](const Base& base) { return base.has(controller); });
}

const Groups::Base* Groups::unified() const {
  const auto found =
      std::find_if(bases_.begin(), bases_.end(), [](const Base& base) { return base.version == 2; });
  return found == bases_.end() ? nullptr : &*found;
}

bool Groups::write(const Base& base, const std::string& name, const char* file,
                   const std::string& value) const {
  const Fd fd(::openat(base.directory.get(), (name + "/" + file).c_str(), O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

std::string Groups::read(const Base& base, const std::string& name, const char* file) const {
  const Fd fd(::openat(base.directory.get(), (name + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
  char text[4096];
  const ssize_t size = fd ? ::read(fd.get(), text, sizeof text) : 0;
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

bool Groups::take(std::string& name) {
  while (!spare_.empty()) {
    name = spare_.front();  // the one that rested longest
    spare_.pop_front();
    if (renew(name, states_.at(name))) return true;
    remove(name);
    states_.erase(name);
  }
  name = "b" + std::to_string(++next_);
  if (make(name)) {
    states_[name] = {};
    return true;
  }
  const int error = errno;
  remove(name);
  errno = error;
  return false;
}

bool Groups::make(const std::string& name) {
  const BoxLimits defaults;
  for (const Base& base : bases_) {
    if (::mkdirat(base.directory.get(), name.c_str(), 0755) != 0) return false;
    if (base.has("memory") && !set_memory_in(base, name, defaults.memory_bytes)) return false;
    if (base.has("cpu") && !set_cpu(base, name, defaults.milli_cpus)) return false;
    if (base.has("pids") && !write(base, name, "pids.max", std::to_string(defaults.pids + 1))) return false;
    if (!base.has_leaves()) continue;
    if (base.has("memory") && !write(base, name, "cgroup.subtree_control", "+memory")) return false;
    if (::mkdirat(base.directory.get(), (name + kLeaf).c_str(), 0755) != 0) return false;
  }
  return true;
}

// The quota is always written: that refills it, whatever the last user has spent of it.
bool Groups::renew(const std::string& name, State& state) {
  if (!set_limits(name, BoxLimits{})) return false;
  for (const Base& base : bases_) {
    if (base.has("cpu") && !set_cpu(base, name, BoxLimits{}.milli_cpus)) return false;
    if (!base.has("memory")) continue;
    if (base.version == 1 && !write(base, name, "memory.max_usage_in_bytes", "0")) return false;
    if (base.version == 1) continue;
    // Linux 6.12; before, a peak stays a peak, and the group cannot be used again.
    if (!state.peak)
      state.peak.reset(::openat(base.directory.get(), (name + "/memory.peak").c_str(), O_RDWR | O_CLOEXEC));
    if (!state.peak || ::write(state.peak.get(), "reset", 5) != 5) return false;
  }
  return read_usage(name, nullptr, state.before);
}

bool Groups::give_back(const std::string& name, bool reusable) {
  const Base* base = unified();
  const bool keep = reusable && spare_.size() < spare_max_ && base != nullptr;
  if (keep) {
    if (read(*base, name, "cgroup.events").find("populated 0") == std::string::npos) return false;
    if (memory_now(name) <= kSpareGroupBytesMax) {
      spare_.push_back(name);
      return true;
    }
  }
  if (!remove(name)) return false;
  states_.erase(name);
  return true;
}

void Groups::remove_spares() {
  spare_max_ = 0;
  for (const auto& name : spare_) remove(name);
  spare_.clear();
}

bool Groups::set_limits(const std::string& name, const BoxLimits& limits) {
  BoxLimits& now = states_.at(name).limits;
  for (const Base& base : bases_) {
    if (base.has("memory") && limits.memory_bytes != now.memory_bytes &&
        !set_memory_in(base, name, limits.memory_bytes))
      return false;
    if (base.has("cpu") && limits.milli_cpus != now.milli_cpus && !set_cpu(base, name, limits.milli_cpus))
      return false;
    // One more: the sandbox's first process is ours.
    if (base.has("pids") && limits.pids != now.pids &&
        !write(base, name, "pids.max", std::to_string(limits.pids + 1)))
      return false;
  }
  now = limits;
  return true;
}

bool Groups::set_memory(const std::string& name, std::int64_t bytes) {
  bool good = true;
  for (const Base& base : bases_) {
    if (base.has("memory")) good &= set_memory_in(base, name, bytes);
  }
  return good;
}

bool Groups::set_memory_in(const Base& base, const std::string& name, std::int64_t bytes) const {
  const std::string value = std::to_string(bytes);
  if (base.version == 2) {
    write(base, name, "memory.swap.max", "0");  // absent without swap
    return write(base, name, "memory.max", value);
  }
  // Memory and swap together may never be less than memory: raised first, lowered last.
  const bool lowered = write(base, name, "memory.limit_in_bytes", value);
  write(base, name, "memory.memsw.limit_in_bytes", value);  // absent without swap accounting
  return lowered || write(base, name, "memory.limit_in_bytes", value);
}

bool Groups::set_cpu(const Base& base, const std::string& name, std::int64_t milli_cpus) const {
  const std::string quota = std::to_string(std::max(milli_cpus * kPeriodUs / 1000, kQuotaUsMin));
  if (base.version == 2) return write(base, name, "cpu.max", quota + " " + std::to_string(kPeriodUs));
  return write(base, name, "cpu.cfs_quota_us", quota);  // the period is 100 ms unless someone changed it
}

bool Groups::make_nested(const std::string& name) {
  for (const Base& base : bases_) {
    if (base.version != 2 && !base.has("memory")) continue;
    if (::mkdirat(base.directory.get(), name.c_str(), 0755) != 0) return false;
  }
  return true;
}

Fd Groups::open_unified(const std::string& name) const {
  const Base* base = unified();
  if (base == nullptr) return Fd();
  const std::string group = base->has_leaves() ? name + kLeaf : name;
  return Fd(::openat(base->directory.get(), group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

bool Groups::open_procs(const std::string& name, bool nested, std::vector<Fd>& procs) const {
  for (const Base& base : bases_) {
    if (nested ? base.version != 2 && !base.has("memory") : base.version == 2) continue;
    procs.emplace_back(
        ::openat(base.directory.get(), (name + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    if (!procs.back()) return false;
  }
  return true;
}

std::int64_t Groups::cpu_us(const std::string& name) const {
  const auto known = states_.find(name);
  const Base* base = unified();
  if (base == nullptr) return 0;
  return number_after(read(*base, name, "cpu.stat"), "usage_usec ") -
         (known == states_.end() ? 0 : known->second.before.cpu_us);
}

std::int64_t Groups::memory_now(const std::string& name) const {
  for (const Base& base : bases_) {
    if (base.has("memory"))
      return number_in(read(base, name, base.version == 2 ? "memory.current" : "memory.usage_in_bytes"));
  }
  return 0;
}

// Since the group was made, but for a peak that was reset.
bool Groups::read_usage(const std::string& name, const State* state, GroupUsage& usage) const {
  const Base* grouping = unified();
  if (grouping == nullptr) return false;
  usage.cpu_us = number_after(read(*grouping, name, "cpu.stat"), "usage_usec ");
  for (const Base& base : bases_) {
    if (!base.has("memory")) continue;
    const bool v2 = base.version == 2;
    char text[32] = {};
    if (state != nullptr && state->peak && ::pread(state->peak.get(), text, sizeof text - 1, 0) > 0)
      usage.memory_peak_bytes = number_in(text);
    else
      usage.memory_peak_bytes = number_in(read(base, name, v2 ? "memory.peak" : "memory.max_usage_in_bytes"));
    usage.memory_kills =
        number_after(read(base, name, v2 ? "memory.events" : "memory.oom_control"), "oom_kill ");
  }
  return true;
}

GroupUsage Groups::usage(const std::string& name) const {
  const auto known = states_.find(name);
  const State* state = known == states_.end() ? nullptr : &known->second;
  GroupUsage usage;
  read_usage(name, state, usage);
  usage.memory_bytes = memory_now(name);
  if (state == nullptr) return usage;
  // What was still charged to it when it was taken is not this one's.
  usage.memory_peak_bytes =
      std::max<std::int64_t>(usage.memory_peak_bytes - state->before.memory_peak_bytes, 0);
  usage.cpu_us -= state->before.cpu_us;
  usage.memory_kills -= state->before.memory_kills;
  return usage;
}

bool Groups::kill(const std::string& name) const {
  const Base* base = unified();
  return base != nullptr && write(*base, name, "cgroup.kill", "1");
}

bool Groups::freeze(const std::string& name, bool frozen) const {
  const Base* base = unified();
  return base != nullptr && write(*base, name, "cgroup.freeze", frozen ? "1" : "0");
}

bool Groups::remove(const std::string& name) const {
  bool gone = true;
  for (const Base& base : bases_) {
    if (base.has_leaves()) ::unlinkat(base.directory.get(), (name + kLeaf).c_str(), AT_REMOVEDIR);
    if (::unlinkat(base.directory.get(), name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) gone = false;
  }
  return gone;
}

bool Groups::sweep() const {
  for (int round = 0; round < 100; ++round) {
    bool clean = true;
    for (const Base& base : bases_) {
      sweep_base(base, ".");
      struct stat information {};
      clean = clean && ::fstat(base.directory.get(), &information) == 0 && information.st_nlink <= 2;
    }
    if (clean) return true;
    ::usleep(20'000);
  }
  return false;
}

// Children first; those that still hold processes stay for the next round.
void Groups::sweep_base(const Base& base, const std::string& below) const {
  const int fd = ::openat(base.directory.get(), below.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* directory = fd < 0 ? nullptr : ::fdopendir(fd);
  if (directory == nullptr) return;
  while (const dirent* entry = ::readdir(directory)) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    const std::string name = below == "." ? entry->d_name : below + "/" + entry->d_name;
    sweep_base(base, name);
    if (base.version != 2 || !write(base, name, "cgroup.kill", "1")) {
      std::string pids = read(base, name, "cgroup.procs");
      for (char* at = pids.data(); *at != '\0';) {
        char* end = nullptr;
        const long pid = std::strtol(at, &end, 10);
        if (end == at) break;
        if (pid > 0) ::kill(static_cast<pid_t>(pid), SIGKILL);
        at = *end == '\n' ? end + 1 : end;
      }
    }
    ::unlinkat(base.directory.get(), name.c_str(), AT_REMOVEDIR);
  }
  ::closedir(directory);
}

}  // namespace capstan::sandbox

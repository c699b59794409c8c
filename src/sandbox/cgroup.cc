// How it works: detection does what a rank's start will do (make a directory, set a limit, move a process in)
// and believes nothing else: a mounted hierarchy may be read-only, delegated in part, or refuse this
// scheduling class.
#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/text.h"
#include "sandbox/cgroup_files.h"

namespace capstan::sandbox {
namespace {

constexpr std::int64_t kPeriodUs = 100'000;
// A hundredth of a CPU as a hard ceiling would stretch the start of a shell to a second and help nobody.
constexpr std::int64_t kCeilingMilliCpusMin = 1000;
constexpr Limits kProbeLimits{.memory_bytes = 64 << 20, .milli_cpus = 1000, .pids_max = 64};
constexpr const char* kControllerNames[] = {"memory", "cpu", "pids"};

// Whether a process like this one can be moved into the directory; errno's value if not.
int try_to_join(const std::string& directory) {
  const std::string procs = directory + "/cgroup.procs";
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open(procs.c_str(), O_WRONLY | O_CLOEXEC);
    ::_exit(fd >= 0 && ::write(fd, "0", 1) == 1 ? 0 : errno);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return EIO;
  return WEXITSTATUS(status);
}

Result<void> set_file(const std::string& directory, const char* file, const std::string& value) {
  if (write_cgroup_file(directory, file, value)) return {};
  return fail_errno("cannot set " + directory + "/" + file + " to " + value, errno);
}

Result<void> set_memory(int version, const std::string& directory, std::int64_t bytes) {
  const std::string value = std::to_string(bytes);
  if (version == 2) {
    CAPSTAN_CHECK(set_file(directory, "memory.max", value));
    write_cgroup_file(directory, "memory.swap.max", "0");   // absent without swap
    write_cgroup_file(directory, "memory.oom.group", "1");  // a rank dies as a whole
    return {};
  }
  CAPSTAN_CHECK(set_file(directory, "memory.limit_in_bytes", value));
  write_cgroup_file(directory, "memory.memsw.limit_in_bytes", value);  // absent without swap accounting
  return {};
}

Result<void> set_cpu(int version, const std::string& directory, std::int64_t milli_cpus) {
  const std::string quota = std::to_string(std::max(milli_cpus, kCeilingMilliCpusMin) * kPeriodUs / 1000);
  if (version == 2) {
    CAPSTAN_CHECK(set_file(directory, "cpu.max", quota + " " + std::to_string(kPeriodUs)));
    return set_file(directory, "cpu.weight",
                    std::to_string(std::clamp<std::int64_t>(milli_cpus / 10, 1, 10'000)));
  }
  CAPSTAN_CHECK(set_file(directory, "cpu.cfs_period_us", std::to_string(kPeriodUs)));
  CAPSTAN_CHECK(set_file(directory, "cpu.cfs_quota_us", quota));
  return set_file(directory, "cpu.shares",
                  std::to_string(std::clamp<std::int64_t>(milli_cpus * 1024 / 1000, 2, 262'144)));
}

// In version 2, the nearest ancestor-or-self whose children get the most of the wanted controllers.
// Enabling is tried on the way: a cgroup that holds processes itself refuses it, its parent usually does not.
std::string place_v2(const Hierarchy& hierarchy, std::vector<std::string>& granted) {
  std::string best = hierarchy.own;
  std::string directory = hierarchy.own;
  for (;;) {
    for (const auto& controller : hierarchy.controllers) {
      write_cgroup_file(directory, "cgroup.subtree_control", "+" + controller);
    }
    const std::string enabled = read_cgroup_file(directory, "cgroup.subtree_control");
    std::vector<std::string> here;
    for (const auto name : split(trim(enabled), ' ')) {
      if (hierarchy.has(name)) here.emplace_back(name);
    }
    if (here.size() > granted.size() && ::access(directory.c_str(), W_OK) == 0) {
      granted = here;
      best = directory;
    }
    if (granted.size() == hierarchy.controllers.size() || directory.size() <= hierarchy.mount_point.size())
      return best;
    directory = std::filesystem::path(directory).parent_path().string();
  }
}

// Another instance may have removed the directories when they were empty.
void make_instance_directories(int version, const std::vector<std::string>& controllers,
                               const std::string& instance) {
  for (const std::string& directory : {std::filesystem::path(instance).parent_path().string(), instance}) {
    if (::mkdir(directory.c_str(), 0755) != 0 || version != 2) continue;
    for (const auto& controller : controllers)
      write_cgroup_file(directory, "cgroup.subtree_control", "+" + controller);
  }
}

}  // namespace

Cgroups Cgroups::detect(const std::string& instance) { return detect_in(find_hierarchies(), instance); }

Cgroups Cgroups::detect_in(const std::vector<Hierarchy>& hierarchies, const std::string& instance) {
  Cgroups cgroups;
  for (const char* controller : kControllerNames) {
    cgroups.note(std::string("cgroup_") + controller, false,
                 "no mounted cgroup hierarchy has this controller");
  }
  cgroups.note("cgroup_kill", false,
               "no usable cgroup hierarchy: processes of a rank are found by parent and environment");
  for (const auto& hierarchy : hierarchies) cgroups.try_hierarchy(hierarchy, instance);
  return cgroups;
}

void Cgroups::note(const std::string& name, bool ok, const std::string& why) {
  const auto known =
      std::find_if(capabilities_.begin(), capabilities_.end(), [&](const auto& c) { return c.name == name; });
  if (known == capabilities_.end()) {
    capabilities_.push_back({name, ok, why});
  } else if (!known->ok) {
    *known = {name, ok, why};
  }
}

bool Cgroups::can(std::string_view capability) const {
  return std::any_of(capabilities_.begin(), capabilities_.end(),
                     [&](const auto& c) { return c.name == capability && c.ok; });
}

void Cgroups::try_hierarchy(const Hierarchy& hierarchy, const std::string& instance) {
  const bool v2 = hierarchy.version == 2;
  std::vector<std::string> granted = v2 ? std::vector<std::string>{} : hierarchy.controllers;
  const std::string parent = v2 ? place_v2(hierarchy, granted) : hierarchy.own;
  const std::string shared = parent + "/capstan";
  Base base{hierarchy.version, {}, shared + "/" + instance};
  const std::string probe = base.directory + "/probe";
  const auto refuse = [&](const std::string& why) {
    for (const auto& controller : hierarchy.controllers) note("cgroup_" + controller, false, why);
    note("cgroup_kill", false, why);
    ::rmdir(probe.c_str());
    ::rmdir(base.directory.c_str());
    ::rmdir(shared.c_str());
  };
  for (const std::string& directory : {shared, base.directory, probe}) {
    if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
      return refuse("cannot make a cgroup in " + parent + ": " + std::strerror(errno));
    }
    if (!v2 || directory == probe) continue;
    for (const auto& controller : granted)
      write_cgroup_file(directory, "cgroup.subtree_control", "+" + controller);
  }
  if (const int error = try_to_join(probe); error != 0) {
    return refuse("cannot move a process into a cgroup in " + parent + ": " + std::strerror(error));
  }
  const std::string where = std::string("version ") + (v2 ? "2" : "1") + " at " + parent;
  note("cgroup_kill", true, where);
  for (const auto& controller : hierarchy.controllers) {
    if (std::find(granted.begin(), granted.end(), controller) == granted.end()) {
      note("cgroup_" + controller, false,
           "version 2 does not hand out this controller here (systemd: Delegate=yes)");
      continue;
    }
    const auto limited = set_limits({base.version, {controller}, {}}, probe, kProbeLimits);
    note("cgroup_" + controller, limited.has_value(), limited ? where : limited.error().message);
    if (limited) base.controllers.push_back(controller);
  }
  ::rmdir(probe.c_str());
  bases_.push_back(std::move(base));
}

Result<void> Cgroups::set_limits(const Base& base, const std::string& directory, const Limits& limits) {
  for (const auto& controller : base.controllers) {
    if (controller == "memory" && limits.memory_bytes > 0) {
      CAPSTAN_CHECK(set_memory(base.version, directory, limits.memory_bytes));
    }
    if (controller == "cpu" && limits.milli_cpus > 0) {
      CAPSTAN_CHECK(set_cpu(base.version, directory, limits.milli_cpus));
    }
    if (controller == "pids" && limits.pids_max > 0) {
      CAPSTAN_CHECK(set_file(directory, "pids.max", std::to_string(limits.pids_max)));
    }
  }
  return {};
}

Result<std::vector<std::string>> Cgroups::create(const std::string& name, const Limits& limits) const {
  std::vector<std::string> made;
  for (const auto& base : bases_) {
    const std::string directory = base.directory + "/" + name;
    make_instance_directories(base.version, base.controllers, base.directory);
    const bool exists = ::mkdir(directory.c_str(), 0755) != 0 && errno == EEXIST;
    if (exists && !cgroup_processes(directory).empty()) {
      remove(made);
      return fail(Code::kConflict, "cgroup {} still holds processes", directory);
    }
    if (!exists && ::access(directory.c_str(), F_OK) != 0) {
      remove(made);
      return fail_errno("cannot make cgroup " + directory, errno);
    }
    made.push_back(directory);
    if (auto limited = set_limits(base, directory, limits); !limited) {
      remove(made);
      return std::unexpected(std::move(limited).error());
    }
  }
  return made;
}

void Cgroups::remove(const std::vector<std::string>& directories) {
  for (const auto& directory : directories) ::rmdir(directory.c_str());
}

void Cgroups::sweep(const std::set<std::string>& keep) const {
  for (const auto& base : bases_) {
    std::error_code error;
    for (std::filesystem::directory_iterator it(base.directory, error), end; !error && it != end;
         it.increment(error)) {
      std::error_code ignored;
      if (!it->is_directory(ignored) || keep.contains(it->path().filename().string())) continue;
      const std::string directory = it->path().string();
      if (!cgroup_processes(directory).empty()) kill_cgroup(directory);
      ::rmdir(directory.c_str());
    }
  }
}

void Cgroups::remove_instance() const {
  for (const auto& base : bases_) {
    ::rmdir(base.directory.c_str());
    ::rmdir(std::filesystem::path(base.directory).parent_path().c_str());
  }
}

}  // namespace capstan::sandbox

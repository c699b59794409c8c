// How it works: mountinfo names each cgroup mount (type cgroup with its controllers among the super options,
// or cgroup2) and which part of the hierarchy is mounted there; /proc/self/cgroup names our place in each
// hierarchy. In a container the place may lie outside the mounted part; then the mount point is all that we
// can see.
#include "sandbox/hierarchy.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "base/text.h"
#include "sandbox/cgroup_files.h"

namespace capstan::sandbox {
namespace {

constexpr std::string_view kControllers[] = {"memory", "cpu", "pids"};
constexpr std::int64_t kUnlimitedBytes = std::int64_t{1}
                                         << 60;  // version 1 says "none" as a number near 2^63

struct Mount {
  std::string root, point, type;
  std::vector<std::string_view> options;
};

std::optional<Mount> parse_mount(std::string_view line) {
  const auto fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (fields.size() < 7 || fields.end() - dash < 4) return std::nullopt;
  Mount mount{std::string(fields[3]), std::string(fields[4]), std::string(dash[1]), split(dash[3], ',')};
  if (mount.type != "cgroup" && mount.type != "cgroup2") return std::nullopt;
  return mount;
}

// Our path in the hierarchy that has `controller` (version 1), or in version 2 (empty controller).
std::optional<std::string> own_path(std::string_view own_cgroups, std::string_view controller) {
  for (const auto line : split(own_cgroups, '\n')) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string_view names = line.substr(first + 1, second - first - 1);
    const auto listed = split(names, ',');
    const bool match = controller.empty()
                           ? names.empty()
                           : std::find(listed.begin(), listed.end(), controller) != listed.end();
    if (match) return std::string(line.substr(second + 1));
  }
  return std::nullopt;
}

std::string below_mount(const Mount& mount, const std::string& path, const std::string& root) {
  std::string rest = path;
  if (mount.root != "/") {
    if (!path.starts_with(mount.root)) return mount.point;
    rest = path.substr(mount.root.size());
  }
  std::string directory = rest.empty() || rest == "/" ? mount.point : mount.point + rest;
  return std::filesystem::is_directory(root + directory) ? directory : mount.point;
}

// The smallest of what `limit_of` says of the directories from our own up to the mount point.
template <class LimitOf>
std::optional<std::int64_t> smallest_on_the_way(const Hierarchy& hierarchy, LimitOf limit_of) {
  std::optional<std::int64_t> smallest;
  std::string directory = hierarchy.own;
  for (;;) {
    if (const auto limit = limit_of(directory)) smallest = std::min(smallest.value_or(*limit), *limit);
    if (directory.size() <= hierarchy.mount_point.size()) return smallest;
    directory = std::filesystem::path(directory).parent_path().string();
  }
}

std::optional<std::int64_t> number_in(const std::string& directory, const char* file) {
  return parse_int(trim(read_cgroup_file(directory, file)));
}

}  // namespace

bool Hierarchy::has(std::string_view controller) const {
  return std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
}

std::vector<Hierarchy> parse_hierarchies(std::string_view mountinfo, std::string_view own_cgroups,
                                         const std::string& root) {
  std::vector<Hierarchy> found;
  for (const auto line : split(mountinfo, '\n')) {
    const auto mount = parse_mount(line);
    if (!mount) continue;
    Hierarchy hierarchy{.version = mount->type == "cgroup2" ? 2 : 1,
                        .controllers = {},
                        .mount_point = root + mount->point,
                        .own = {}};
    std::vector<std::string> offered;
    if (hierarchy.version == 2) {
      const std::string text = read_cgroup_file(hierarchy.mount_point, "cgroup.controllers");
      for (const auto name : split(trim(text), ' ')) offered.emplace_back(name);
    } else {
      for (const auto name : mount->options) offered.emplace_back(name);
    }
    for (const auto name : kControllers) {
      if (std::find(offered.begin(), offered.end(), name) != offered.end())
        hierarchy.controllers.emplace_back(name);
    }
    if (hierarchy.version == 1 && hierarchy.controllers.empty()) continue;
    const auto path =
        own_path(own_cgroups,
                 hierarchy.version == 2 ? std::string_view{} : std::string_view(hierarchy.controllers[0]));
    if (!path) continue;
    hierarchy.own = root + below_mount(*mount, *path, root);
    const bool seen = std::any_of(found.begin(), found.end(), [&](const Hierarchy& other) {
      return other.version == hierarchy.version && other.controllers == hierarchy.controllers;
    });
    if (!seen) found.push_back(std::move(hierarchy));
  }
  return found;
}

std::vector<Hierarchy> find_hierarchies() {
  const auto mountinfo = read_file("/proc/self/mountinfo");
  const auto own = read_file("/proc/self/cgroup");
  if (!mountinfo || !own) return {};
  return parse_hierarchies(*mountinfo, *own);
}

std::optional<std::int64_t> own_memory_limit_bytes(const std::vector<Hierarchy>& hierarchies) {
  for (const auto& hierarchy : hierarchies) {
    if (!hierarchy.has("memory")) continue;
    const char* file = hierarchy.version == 2 ? "memory.max" : "memory.limit_in_bytes";
    return smallest_on_the_way(hierarchy, [&](const std::string& directory) -> std::optional<std::int64_t> {
      const auto bytes = number_in(directory, file);
      if (!bytes || *bytes >= kUnlimitedBytes) return std::nullopt;
      return bytes;
    });
  }
  return std::nullopt;
}

std::optional<std::int64_t> own_cpu_limit_milli(const std::vector<Hierarchy>& hierarchies) {
  for (const auto& hierarchy : hierarchies) {
    if (!hierarchy.has("cpu")) continue;
    return smallest_on_the_way(hierarchy, [&](const std::string& directory) -> std::optional<std::int64_t> {
      std::optional<std::int64_t> quota, period;
      if (hierarchy.version == 2) {
        const std::string text = read_cgroup_file(directory, "cpu.max");
        const auto parts = split(trim(text), ' ');
        if (parts.size() != 2) return std::nullopt;
        quota = parse_int(parts[0]);
        period = parse_int(parts[1]);
      } else {
        quota = number_in(directory, "cpu.cfs_quota_us");
        period = number_in(directory, "cpu.cfs_period_us");
      }
      if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
      return *quota * 1000 / *period;
    });
  }
  return std::nullopt;
}

}  // namespace capstan::sandbox

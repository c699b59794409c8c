#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_files.h"

namespace capstan::sandbox {
namespace {

namespace fs = std::filesystem;

class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(fs::temp_directory_path() / ("capstan-sandbox-" + random_hex(6))) {
    fs::create_directories(path_);
  }
  ~TemporaryDirectory() { fs::remove_all(path_); }
  std::string string() const { return path_.string(); }

 private:
  fs::path path_;
};

void put(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  ASSERT_TRUE(write_file_atomic(path, text));
}

// Removes this test's own cgroups on every way out.
struct Instance {
  std::string name = "test-" + random_hex(6);
  Cgroups cgroups = Cgroups::detect(name);
  ~Instance() { cgroups.remove_instance(); }
};

pid_t spawn_in(const std::vector<std::string>& directories, void (*body)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const auto& directory : directories) {
      if (!join_cgroup(directory)) ::_exit(99);
    }
    body();
    ::_exit(0);
  }
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

// Goal: a hybrid host's mounts and our places in them are read as the kernel writes them.
TEST(HierarchyTest, HybridHostHasOneHierarchyPerControllerAndTheGroupingOne) {
  const TemporaryDirectory root;
  fs::create_directories(root.string() + "/sys/fs/cgroup/memory/box/seven");
  fs::create_directories(root.string() + "/sys/fs/cgroup/unified");
  const auto found = parse_hierarchies(
      "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory\n"
      "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
      "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
      "33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
      "22 1 0:20 / /proc rw - proc proc rw\n",
      "9:name=systemd:/\n4:memory:/box/seven\n1:cpu,cpuacct:/\n0::/\n", root.string());
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].version, 1);
  EXPECT_TRUE(found[0].has("memory"));
  EXPECT_EQ(found[0].own, root.string() + "/sys/fs/cgroup/memory/box/seven");
  EXPECT_TRUE(found[1].has("cpu"));
  EXPECT_EQ(found[1].own, root.string() + "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(found[2].version, 2);
  EXPECT_TRUE(found[2].controllers.empty());
}

// Goal: in a container, where our place lies outside the mounted part, the mount point stands for it.
TEST(HierarchyTest, APlaceOutsideTheMountedPartIsTheMountPoint) {
  const TemporaryDirectory root;
  put(root.string() + "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
  const auto found = parse_hierarchies("30 25 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
                                       "0::/../other\n", root.string());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].own, root.string() + "/sys/fs/cgroup");
  EXPECT_EQ(found[0].controllers, (std::vector<std::string>{"memory", "cpu", "pids"}));
}

// Goal: the effective limit is the smallest on the way up, in both versions.
TEST(HierarchyTest, TheSmallestLimitOnTheWayUpCounts) {
  const TemporaryDirectory root;
  const std::string top = root.string() + "/cg";
  put(top + "/cgroup.controllers", "memory cpu\n");
  put(top + "/a/memory.max", "1000000\n");
  put(top + "/a/cpu.max", "150000 100000\n");
  put(top + "/a/b/memory.max", "max\n");
  put(top + "/a/b/cpu.max", "max 100000\n");
  const auto found =
      parse_hierarchies("30 25 0:26 / /cg rw - cgroup2 cgroup rw\n", "0::/a/b\n", root.string());
  EXPECT_EQ(own_memory_limit_bytes(found), 1'000'000);
  EXPECT_EQ(own_cpu_limit_milli(found), 1500);
  EXPECT_EQ(own_memory_limit_bytes({}), std::nullopt);
}

// Goal: nothing fails where there are no cgroups; every capability then says why not.
TEST(CgroupTest, AHostWithoutCgroupsEnforcesNothingAndSaysWhy) {
  const Cgroups none = Cgroups::detect_in({}, "x");
  for (const auto& capability : none.capabilities()) {
    EXPECT_FALSE(capability.ok) << capability.name;
    EXPECT_FALSE(capability.why.empty()) << capability.name;
  }
  EXPECT_EQ(none.capabilities().size(), 4u);
  EXPECT_TRUE(none.create("r", {.memory_bytes = 1, .milli_cpus = 1, .pids_max = 1}).value().empty());
}

// Goal: a directory tree that only looks like a hierarchy (its files cannot move processes) is refused, not
// believed.
TEST(CgroupTest, AHierarchyThatRefusesProcessesIsNotUsed) {
  const TemporaryDirectory root;
  const Hierarchy pretended{
      .version = 1, .controllers = {"memory"}, .mount_point = root.string(), .own = root.string()};
  const Cgroups cgroups = Cgroups::detect_in({pretended}, "x");
  EXPECT_FALSE(cgroups.can("cgroup_memory"));
  EXPECT_FALSE(fs::exists(root.string() + "/capstan"));
}

TEST(CgroupTest, AMemoryBombIsKilledAndCounted) {
  Instance instance;
  if (!instance.cgroups.can("cgroup_memory")) GTEST_SKIP() << "cgroup_memory is not available on this host";
  const auto directories = instance.cgroups.create("bomb", {.memory_bytes = 32 << 20});
  ASSERT_TRUE(directories) << directories.error().message;
  const pid_t child = spawn_in(*directories, [] {
    for (int i = 0; i < 256; ++i) {
      auto* block = new char[1 << 20];
      for (int at = 0; at < (1 << 20); at += 4096) *const_cast<volatile char*>(block + at) = 1;
    }
  });
  const int status = wait_for(child);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  std::int64_t kills = 0;
  for (const auto& directory : *directories) kills += cgroup_oom_kills(directory);
  EXPECT_GE(kills, 1);
  Cgroups::remove(*directories);
}

TEST(CgroupTest, AForkBombMeetsItsLimit) {
  Instance instance;
  if (!instance.cgroups.can("cgroup_pids")) GTEST_SKIP() << "cgroup_pids is not available on this host";
  const auto directories = instance.cgroups.create("forks", {.pids_max = 5});
  ASSERT_TRUE(directories) << directories.error().message;
  const pid_t child = spawn_in(*directories, [] {
    int children = 0;
    for (int i = 0; i < 20; ++i) {
      const pid_t pid = ::fork();
      if (pid == 0) ::pause();
      if (pid > 0) ++children;
    }
    ::_exit(children);
  });
  EXPECT_EQ(WEXITSTATUS(wait_for(child)), 4);
  for (const auto& directory : *directories) kill_cgroup(directory);
  for (int i = 0; i < 200 && !cgroup_processes(directories->front()).empty(); ++i) ::usleep(10'000);
  EXPECT_TRUE(cgroup_processes(directories->front()).empty());
  Cgroups::remove(*directories);
}

// Goal: a daemonised grandchild, out of reach by parent or group, is found and ended by its cgroup.
TEST(CgroupTest, AllProcessesOfAGroupAreFoundAndKilled) {
  Instance instance;
  if (!instance.cgroups.can("cgroup_kill")) GTEST_SKIP() << "cgroup_kill is not available on this host";
  const auto directories = instance.cgroups.create("daemons", {});
  ASSERT_TRUE(directories) << directories.error().message;
  wait_for(spawn_in(*directories, [] {
    if (::fork() == 0) {
      ::setsid();
      if (::fork() == 0) ::pause();
      ::_exit(0);
    }
    ::wait(nullptr);
  }));
  EXPECT_EQ(cgroup_processes(directories->front()).size(), 1u);
  EXPECT_EQ(instance.cgroups.create("daemons", {}).error().code, Code::kConflict);
  kill_cgroup(directories->front());
  for (int i = 0; i < 200 && !cgroup_processes(directories->front()).empty(); ++i) ::usleep(10'000);
  EXPECT_TRUE(cgroup_processes(directories->front()).empty());
  Cgroups::remove(*directories);
  for (const auto& directory : *directories) EXPECT_FALSE(fs::exists(directory));
}

TEST(CgroupTest, ASweepRemovesGroupsThatNobodyKnows) {
  Instance instance;
  if (!instance.cgroups.can("cgroup_kill")) GTEST_SKIP() << "cgroup_kill is not available on this host";
  const auto known = instance.cgroups.create("known", {});
  const auto forgotten = instance.cgroups.create("forgotten", {});
  ASSERT_TRUE(known && forgotten);
  const pid_t child = spawn_in(*forgotten, [] { ::pause(); });
  while (cgroup_processes(forgotten->back()).empty()) ::usleep(1'000);
  instance.cgroups.sweep({"known"});
  EXPECT_EQ(WTERMSIG(wait_for(child)), SIGKILL);
  instance.cgroups.sweep({"known"});
  for (const auto& directory : *forgotten) EXPECT_FALSE(fs::exists(directory));
  for (const auto& directory : *known) EXPECT_TRUE(fs::exists(directory));
  Cgroups::remove(*known);
}

}  // namespace
}  // namespace capstan::sandbox

// The small parts of the worker that need no processes: records, environment, logs, locks, users.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <filesystem>

#include "base/file.h"
#include "worker/host_resources.h"
#include "worker/log_reader.h"
#include "worker/log_retention.h"
#include "worker/places.h"
#include "worker/rank_store.h"
#include "worker/shim/launch_record.h"
#include "worker/shim/rotating_log.h"
#include "worker/start_spec.h"
#include "worker/worker_lock.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;

class Temporary {
 public:
  Temporary() : path_(fs::temp_directory_path() / ("capstan-parts-" + random_hex(6))) {
    fs::create_directories(path_);
  }
  ~Temporary() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  Descriptor open() const { return Descriptor(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }

 private:
  fs::path path_;
};

TEST(RankIdTest, OneSpellingPerId) {
  EXPECT_EQ((RankId{7, 1, 0}.text()), "7-1-0");
  EXPECT_EQ(RankId::parse("7-1-0"), (RankId{7, 1, 0}));
  for (const char* bad : {"7-1", "7-1-0-0", "07-1-0", "7-1-x", "7-1-", "", "7--1-0"})
    EXPECT_EQ(RankId::parse(bad), std::nullopt) << bad;
}

TEST(LaunchRecordTest, ReadsBackWhatWasWrittenAndRefusesWhatIsCut) {
  shim::LaunchRecord record{.command = {"a", "", "b=c"},
                            .environment = {"X=1\n2"},
                            .cgroups = {"/cg"},
                            .workdir = "/w",
                            .log_name = "0.log",
                            .log_bytes_max = 5,
                            .grace_ms = 6,
                            .timeout_ms = 7,
                            .open_files_max = 3,
                            .uid = 8,
                            .gid = 9,
                            .groups = {10, 11}};
  const std::string bytes = shim::encode(record);
  shim::LaunchRecord back;
  std::string why;
  ASSERT_TRUE(shim::decode(bytes, back, why)) << why;
  EXPECT_EQ(shim::encode(back), bytes);
  EXPECT_EQ(back.command, record.command);
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(shim::decode(bytes.substr(0, length), back, why)) << length;
}

TEST(StartSpecTest, RefusesWhatCannotBeStarted) {
  const auto from = [](const char* text) { return StartSpec::from_json(Json::parse(text).value()); };
  EXPECT_TRUE(from(R"({"job":1,"attempt":1,"rank":0,"command":["a"]})"));
  for (const char* bad :
       {R"({"job":1,"attempt":1,"command":["a"]})", R"({"job":1,"attempt":1,"rank":0})",
        R"({"job":1,"attempt":1,"rank":0,"command":[]})", R"({"job":1,"attempt":1,"rank":0,"command":[""]})",
        R"({"job":1,"attempt":1,"rank":0,"command":["a\u0000b"]})",
        R"({"job":1,"attempt":1,"rank":-1,"command":["a"]})",
        R"({"job":1,"attempt":1,"rank":0,"command":["a"],"env":{"A=B":"1"}})",
        R"({"job":1,"attempt":1,"rank":0,"command":["a"],"workdir":"tmp"})",
        R"({"job":1,"attempt":1,"rank":0,"command":["a"],"port":70000})"}) {
    EXPECT_FALSE(from(bad)) << bad;
  }
}

TEST(StartSpecTest, ExpandsTheTwoFoldersAndNothingElse) {
  const HostPaths paths{"/jobs/x", "/share", "/bin"};
  EXPECT_EQ(expand("${CAPSTAN_SHARE}/models/abacus:${CAPSTAN_JOB_DIR}:$HOME:${HOME}", paths),
            "/share/models/abacus:/jobs/x:$HOME:${HOME}");
}

TEST(StartSpecTest, TheControllersVariablesWinExceptForCapstansOwn) {
  StartSpec spec;
  spec.env = {{"PATH", "/mine"}, {"CAPSTAN_SHARE", "/forged"}, {"RANK", "2"}};
  const auto variables = rank_environment(spec, {"/jobs/x", "/share", "/bin"}, "ada", "/home/ada", "mark");
  EXPECT_EQ(variables, (std::vector<std::string>{"CAPSTAN_JOB_DIR=/jobs/x", "CAPSTAN_RANK_MARK=mark",
                                                 "CAPSTAN_SHARE=/share", "HOME=/home/ada", "LANG=C.UTF-8",
                                                 "PATH=/mine", "RANK=2", "TMPDIR=/tmp", "USER=ada"}));
}

TEST(HostResourcesTest, AReserveIsKeptAndNothingIsNegative) {
  EXPECT_EQ(offered_memory_bytes(std::int64_t{16} << 30), std::int64_t{15} << 30);
  EXPECT_EQ(offered_memory_bytes(64 << 20), 0);
  EXPECT_EQ(offered_memory_bytes(std::int64_t{1} << 40), (std::int64_t{1} << 40) - (std::int64_t{2} << 30));
  EXPECT_GE(host_resources().milli_cpus, 1000 / 10);
  EXPECT_GT(host_resources().memory_bytes, 0);
}

TEST(RankStoreTest, AClaimIsExclusiveLockedAndForgettable) {
  const Temporary directory;
  const Descriptor fd = directory.open();
  const RankStore store(fd.get());
  {
    const auto claim = store.claim({1, 2, 3}, Json::object({{"a", 1}}));
    ASSERT_TRUE(claim);
    EXPECT_EQ(store.claim({1, 2, 3}, Json::object()).error().code, Code::kConflict);
    EXPECT_TRUE(store.locked({1, 2, 3}));
    EXPECT_EQ(store.write_exit({1, 2, 3}, {}).error().code, Code::kConflict);
  }
  EXPECT_FALSE(store.locked({1, 2, 3}));
  EXPECT_EQ(store.spec({1, 2, 3})->get_int("a"), 1);
  EXPECT_EQ(store.exit({1, 2, 3}).error().code, Code::kNotFound);
  shim::ExitRecord end;
  end.exit_code = 4;
  ASSERT_TRUE(store.write_exit({1, 2, 3}, end));
  EXPECT_EQ(store.exit({1, 2, 3})->get_int("exit_code"), 4);
  ASSERT_TRUE(store.forget({1, 2, 3}));
  ASSERT_TRUE(store.forget({1, 2, 3}));
  EXPECT_TRUE(fs::is_empty(directory.path()));
}

// Goal: a crash in the middle of a removal leaves nothing that looks like a rank.
TEST(RankStoreTest, AnInterruptedRemovalIsCompleted) {
  const Temporary directory;
  fs::create_directories(directory.path() / ".forget-1-1-0");
  ASSERT_TRUE(write_file_atomic(directory.path() / ".forget-1-1-0/exit.json", "{}"));
  fs::create_directories(directory.path() / "2-1-0");
  fs::create_directories(directory.path() / "10-1-0");
  const Descriptor fd = directory.open();
  EXPECT_EQ(RankStore(fd.get()).list().value(), (std::vector<RankId>{{2, 1, 0}, {10, 1, 0}}));
  EXPECT_FALSE(fs::exists(directory.path() / ".forget-1-1-0"));
}

std::string read_all(LogReader& reader) {
  std::string all;
  for (std::string piece; !(piece = reader.read()).empty();) all += piece;
  return all;
}

// Goal: a reader sees one stream whatever was rotated before or is rotated while it reads (twin: the whole
// text).
TEST(LogReaderTest, FollowsOverRotations) {
  const Temporary directory;
  const Descriptor fd = directory.open();
  shim::RotatingLog log(fd.get(), "0.log", 65536);
  LogReader reader(directory.open(), "0.log", std::nullopt);
  std::string written, read;
  for (int i = 0; i < 20'000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    log.append(line);
    written += line;
    if (i % 500 == 0) read += read_all(reader);
  }
  read += read_all(reader);
  EXPECT_EQ(read, written);
}

TEST(LogReaderTest, ATailBeginsAtALine) {
  const Temporary directory;
  const Descriptor fd = directory.open();
  shim::RotatingLog log(fd.get(), "0.log", 65536);
  for (int i = 0; i < 4000; ++i)
    log.append("line " + std::to_string(10'000 + i) + "\n");  // 11 bytes each, over two parts
  for (const auto& [bytes, first] : std::vector<std::pair<std::int64_t, int>>{
           {0, 14'000}, {10, 14'000}, {11, 13'999}, {12, 13'999}, {22'000, 12'000}}) {
    LogReader reader(directory.open(), "0.log", bytes);
    const std::string text = read_all(reader);
    if (first == 14'000) {
      EXPECT_EQ(text, "") << bytes;
    } else {
      EXPECT_EQ(text.substr(0, 11), "line " + std::to_string(first) + "\n") << bytes;
    }
  }
  LogReader none(directory.open(), "7.log", std::nullopt);
  EXPECT_EQ(none.read(), "");
}

TEST(UserTest, ByDefaultNobodyIsRoot) {
  const auto user = resolve_user("", 0);
  ASSERT_TRUE(user);
  if (::geteuid() == 0) {
    EXPECT_EQ(user->name, "nobody");
    EXPECT_TRUE(user->switched);
    EXPECT_FALSE(resolve_user("root", 0)->switched);
    EXPECT_EQ(resolve_user("12345", 0)->uid, 12345u);
  } else {
    EXPECT_EQ(user->uid, ::geteuid());
    EXPECT_EQ(resolve_user("root", 0).error().code, Code::kDenied);
  }
  EXPECT_EQ(resolve_user("no-such-user-here", 0).error().code, Code::kNotFound);
}

// Goal: what only root can read is copied to where the rank's user can, once, and again when it changed.
TEST(PlacesTest, ProgramsThatTheUserCannotReadAreCopied) {
  if (::geteuid() != 0) GTEST_SKIP() << "user_switch is not available: not root";
  const Temporary root_only, data;
  fs::permissions(root_only.path(), fs::perms::owner_all);
  ASSERT_TRUE(make_directories(root_only.path() / "bin"));
  ASSERT_TRUE(make_directories(root_only.path() / "share/models/abacus"));
  ASSERT_TRUE(write_file_atomic(root_only.path() / "bin/capstan-train", "one", 0755));
  ASSERT_TRUE(write_file_atomic(root_only.path() / "share/models/abacus/config.json", "{}"));
  const auto nobody = resolve_user("nobody", 0);
  ASSERT_TRUE(nobody);
  ASSERT_EQ(::chown(data.path().c_str(), nobody->uid, nobody->gid), 0);
  const Places places{data.path(), nobody->uid, root_only.path() / "bin", root_only.path() / "share"};
  const auto shipped = shipped_for(places, *nobody);
  ASSERT_TRUE(shipped) << shipped.error().message;
  EXPECT_EQ(shipped->bin, data.path() / "bin");
  EXPECT_EQ(read_file(shipped->bin / "capstan-train").value(), "one");
  EXPECT_TRUE(fs::exists(shipped->share / "models/abacus/config.json"));
  ASSERT_TRUE(write_file_atomic(root_only.path() / "bin/capstan-train", "second", 0755));
  ASSERT_TRUE(shipped_for(places, *nobody));
  EXPECT_EQ(read_file(shipped->bin / "capstan-train").value(), "second");
  const auto job = job_directory(places, *nobody, "train");
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(*job, data.path() / "jobs/train");
  EXPECT_FALSE(job_directory(places, *nobody, "../etc"));
}

// Goal: logs are bounded in number too: the oldest jobs' go first, those of known ranks never.
TEST(LogRetentionTest, TheOldestJobsLogsGoFirst) {
  const Temporary directory;
  const Descriptor fd = directory.open();
  for (const char* name : {"1/1/0.log", "2/1/0.log", "10/1/0.log", "11/3/0.log.1", "notes/x"}) {
    fs::create_directories((directory.path() / name).parent_path());
    ASSERT_TRUE(write_file_atomic(directory.path() / name, "x"));
  }
  EXPECT_EQ(prune_logs(fd.get(), 2, {1}), 1);
  EXPECT_TRUE(fs::exists(directory.path() / "1/1/0.log"));
  EXPECT_FALSE(fs::exists(directory.path() / "2"));
  EXPECT_TRUE(fs::exists(directory.path() / "10/1/0.log"));
  EXPECT_TRUE(fs::exists(directory.path() / "notes/x"));
  EXPECT_EQ(prune_logs(fd.get(), 2, {1}), 0);
}

// Goal: root never writes through a link that the data directory's owner has put in place of a folder.
TEST(DataDirectoryTest, AFolderThatIsNotOursIsRefused) {
  const Temporary directory, elsewhere;
  fs::create_directory_symlink(elsewhere.path(), directory.path() / "worker");
  EXPECT_FALSE(DataDirectory::open(directory.path()));
  fs::remove(directory.path() / "worker");
  fs::create_directories(directory.path() / "worker");
  fs::permissions(directory.path() / "worker", fs::perms::all);
  EXPECT_EQ(DataDirectory::open(directory.path()).error().code, Code::kDenied);
}

// Goal: one worker per directory; one of another build is asked to leave, a dead one is no obstacle.
TEST(WorkerLockTest, ALiveWorkerOfAnotherBuildLeavesAndADeadOneIsNoObstacle) {
  const Temporary directory;
  const auto data = DataDirectory::open(directory.path());
  ASSERT_TRUE(data);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t old_worker = ::fork();
  if (old_worker == 0) {
    const auto lock = WorkerLock::acquire(*data, "old");
    if (!lock || !lock->announce(*data, "x", "old", 1)) ::_exit(1);
    (void)!::write(ready[1], "x", 1);
    ::pause();  // SIGUSR1 ends it
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(WorkerLock::acquire(*data, "old").error().code, Code::kConflict);
  {
    const auto taken = WorkerLock::acquire(*data, "new");
    ASSERT_TRUE(taken) << taken.error().message;
    int status = 0;
    ::waitpid(old_worker, &status, 0);
    EXPECT_EQ(WTERMSIG(status), SIGUSR1);
  }
  EXPECT_TRUE(WorkerLock::acquire(*data, "newer"));
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace capstan::worker

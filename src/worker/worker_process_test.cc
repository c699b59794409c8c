// The worker as a process, against a small controller that speaks the real wire.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>

#include "base/file.h"
#include "base/prng.h"
#include "base/text.h"
#include "http/client.h"
#include "http/server.h"
#include "protocol/messages.h"
#include "worker/shim/records.h"

namespace capstan::worker {
namespace {

namespace fs = std::filesystem;
using protocol::RankId;

// Sends effects once each, keeps all reports, checks every request by the protocol's own decoder.
class SmallController {
 public:
  SmallController(fs::path data, std::int64_t epoch) : data_(std::move(data)), epoch_(epoch) {
    http::Router router;
    router.add("POST", "/worker/v1/sync",
               [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
                 writer->respond(sync(request));
               });
    server_ = http::Server::start({}, router.handler()).value();
    const Json where = Json::object(
        {{"pid", 1}, {"host", "127.0.0.1"}, {"port", server_->port()}, {"epoch", epoch}, {"build", "test"}});
    EXPECT_TRUE(write_file_atomic(data_ / "controller.json", where.dump()));
  }
  ~SmallController() {
    {
      const std::lock_guard lock(mutex_);
      leaving_ = true;
      changed_.notify_all();
    }
    server_.reset();
  }

  void send(Json effect) {
    const std::lock_guard lock(mutex_);
    effect["id"] = next_effect_++;
    effects_.push_back(std::move(effect));
    changed_.notify_all();
  }

  // The first report of the rank with this body.
  template <class Body>
  std::optional<Body> report(const RankId& id) {
    std::unique_lock lock(mutex_);
    const Body* found = nullptr;
    changed_.wait_for(lock, std::chrono::seconds(15), [&] {
      for (const auto& report : reports_) {
        if (report.id == id && (found = std::get_if<Body>(&report.body)) != nullptr) return true;
      }
      return false;
    });
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  template <class Body>
  bool has_report(const RankId& id) {
    const std::lock_guard lock(mutex_);
    return std::any_of(reports_.begin(), reports_.end(),
                       [&](const auto& r) { return r.id == id && std::holds_alternative<Body>(r.body); });
  }
  // Waits for any report that the rank is over.
  bool has_ended(const RankId& id) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(15), [&] {
      return std::any_of(reports_.begin(), reports_.end(),
                         [&](const auto& report) { return report.id == id && report.is_end(); });
    });
  }
  protocol::SyncRequest first_request() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(15), [&] { return first_.has_value(); }));
    return first_.value_or(protocol::SyncRequest{});
  }

 private:
  http::Response sync(const http::Request& request) {
    if (request.headers.get("authorization") != "Bearer " + std::string(64, 'a'))
      return http::Response::text(401, "token");
    const auto json = Json::parse(request.body);
    const auto decoded = json ? protocol::SyncRequest::from_json(*json) : std::unexpected(json.error());
    if (!decoded) {
      ADD_FAILURE() << decoded.error().message << "\n" << request.body;
      return http::Response::text(400, decoded.error().message);
    }
    std::unique_lock lock(mutex_);
    if (!first_) first_ = *decoded;
    std::int64_t acked = 0;
    for (const auto& report : decoded->reports) {
      reports_.push_back(report);
      acked = report.seq;
    }
    changed_.notify_all();
    if (decoded->epoch_seen == epoch_)
      std::erase_if(effects_,
                    [&](const Json& effect) { return effect.get_int("id") <= decoded->effects_done; });
    if (decoded->reports.empty())
      changed_.wait_for(lock, std::chrono::seconds(2), [&] { return leaving_ || !effects_.empty(); });
    return http::Response::json(
        200, Json::object({{"epoch", epoch_},
                           {"reports_acked", acked},
                           {"full", false},
                           {"effects", Json(Json::Array(effects_.begin(), effects_.end()))},
                           {"shutdown", false}}));
  }

  fs::path data_;
  std::int64_t epoch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Json> effects_;
  std::vector<protocol::Report> reports_;
  std::optional<protocol::SyncRequest> first_;
  std::int64_t next_effect_ = 1;
  bool leaving_ = false;
  std::unique_ptr<http::Server> server_;
};

class WorkerProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("capstan-process-" + random_hex(6));
    fs::create_directories(path_);
    fs::permissions(path_, fs::perms::all);
    ASSERT_TRUE(write_file_atomic(path_ / "worker.token", std::string(64, 'a') + "\n", 0600));
  }
  void TearDown() override {
    if (worker_ > 0) end_worker(SIGTERM);
    fs::remove_all(path_);
  }
  void start_worker() {
    const std::string log = path_ / "worker.log";
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);  // sockets of this process
    std::string program = CAPSTAN_WORKER_BINARY, data = path_,
                bin = fs::path(CAPSTAN_SHIM_BINARY).parent_path();
    char* arguments[] = {program.data(), data.data(), bin.data(), nullptr};
    char* environment[] = {nullptr};
    ASSERT_EQ(::posix_spawn(&worker_, program.c_str(), &actions, nullptr, arguments, environment), 0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  // Its wait status.
  int end_worker(int signal) {
    ::kill(worker_, signal);
    int status = 0;
    ::waitpid(worker_, &status, 0);
    worker_ = -1;
    return status;
  }
  Json start(const RankId& id, const std::string& script) const {
    return Json::object(
        {{"type", "start_rank"},
         {"job", id.job},
         {"attempt", id.attempt},
         {"rank", id.rank},
         {"name", "work"},
         {"kind", "job"},
         {"tenant", "default"},
         {"user", ::geteuid() == 0 ? "root" : ""},
         {"command", Json::array({"/bin/sh", "-c", script})},
         {"workdir", "/"},
         {"grace_ms", 3000},
         {"resources", Json::object({{"milli_cpus", 1000}, {"memory_bytes", 0}, {"gpus", 0}})}});
  }
  std::string logs(const std::string& url, const std::string& query,
                   const std::string& token = std::string(64, 'a')) {
    http::Client client;
    http::Request get;
    get.target = "/logs?" + query;
    get.headers = {{"authorization", "Bearer " + token}};
    const auto answer = client.request(url, get, {});
    return answer ? fmt::format("{} {}", answer->status, answer->body) : answer.error().message;
  }

  fs::path path_;
  pid_t worker_ = -1;
};

// Goal: the main path: a rank is started, its log streamed until its end, its exit told.
TEST_F(WorkerProcessTest, StartsARankStreamsItsLogAndTellsItsEnd) {
  SmallController controller(path_, 1);
  start_worker();
  const auto hello = controller.first_request();
  EXPECT_GT(hello.resources.milli_cpus, 0);
  EXPECT_EQ(hello.capabilities.size(), 5u);
  controller.send(start({1, 1, 0}, "echo one; sleep 0.3; echo two; exit 3"));
  ASSERT_TRUE(controller.report<protocol::RankStarted>({1, 1, 0}));
  EXPECT_EQ(logs(hello.logs_url, "job=1&attempt=1&rank=0&follow=1"), "200 one\ntwo\n");
  EXPECT_EQ(controller.report<protocol::RankExited>({1, 1, 0})->exit_code, 3);
  EXPECT_EQ(logs(hello.logs_url, "job=1&attempt=1&rank=0&tail_bytes=4"), "200 two\n");
  EXPECT_EQ(logs(hello.logs_url, "job=1&attempt=1&rank=7").substr(0, 3), "404");
  EXPECT_EQ(logs(hello.logs_url, "job=1&attempt=1").substr(0, 3), "400");
  EXPECT_EQ(logs(hello.logs_url, "job=1&attempt=1&rank=0", "wrong").substr(0, 3), "401");
}

// Goal: kill -9 of the worker with a rank running: the next worker adopts it and tells its exit code.
TEST_F(WorkerProcessTest, ARankSurvivesItsWorker) {
  SmallController controller(path_, 1);
  start_worker();
  controller.send(
      start({1, 1, 0}, "while [ ! -e " + (path_ / "go").string() + " ]; do sleep 0.05; done; exit 5"));
  ASSERT_TRUE(controller.report<protocol::RankStarted>({1, 1, 0}));
  end_worker(SIGKILL);
  start_worker();
  ASSERT_TRUE(write_file_atomic(path_ / "go", "1"));
  const auto end = controller.report<protocol::RankExited>({1, 1, 0});
  ASSERT_TRUE(end);
  EXPECT_EQ(end->exit_code, 5);
  EXPECT_FALSE(end->lost);
}

// Goal: the controller goes away and comes back on another port with a new epoch; the exit meanwhile is not
// lost.
TEST_F(WorkerProcessTest, AnExitWhileTheControllerIsAwayIsToldToTheNextOne) {
  start_worker();
  {
    SmallController controller(path_, 1);
    controller.send(start({1, 1, 0}, "sleep 0.5; exit 6"));
    ASSERT_TRUE(controller.report<protocol::RankStarted>({1, 1, 0}));
  }
  ::usleep(700'000);
  SmallController controller(path_, 2);
  EXPECT_EQ(controller.report<protocol::RankExited>({1, 1, 0})->exit_code, 6);
  EXPECT_TRUE(controller.first_request().ranks.has_value());
}

// Goal: SIGTERM stops ranks with their grace and tells their ends before the worker leaves.
TEST_F(WorkerProcessTest, ATerminatedWorkerStopsItsRanksAndTellsTheirEnds) {
  SmallController controller(path_, 1);
  start_worker();
  controller.send(start({1, 1, 0}, "trap 'exit 75' TERM; echo ready; while :; do sleep 0.05; done"));
  const auto hello = controller.first_request();
  ASSERT_TRUE(controller.report<protocol::RankStarted>({1, 1, 0}));
  while (logs(hello.logs_url, "job=1&attempt=1&rank=0") != "200 ready\n") ::usleep(10'000);
  const int status = end_worker(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  const auto end = controller.report<protocol::RankExited>({1, 1, 0});
  ASSERT_TRUE(end);
  EXPECT_EQ(end->exit_code, 75);
  EXPECT_TRUE(end->stopped);
}

// Goal: SIGUSR1 (another build takes over) leaves ranks running; SIGINT does nothing.
TEST_F(WorkerProcessTest, AWorkerThatIsAskedToLeaveLeavesItsRanksRunning) {
  SmallController controller(path_, 1);
  start_worker();
  controller.send(start({1, 1, 0}, "exec sleep 1000"));
  const auto started = controller.report<protocol::RankStarted>({1, 1, 0});
  ASSERT_TRUE(started);
  ::kill(worker_, SIGINT);
  const int status = end_worker(SIGUSR1);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_NE(shim::start_ticks(static_cast<pid_t>(started->pid)), 0u);
  start_worker();
  controller.send(Json::object(
      {{"type", "stop_rank"}, {"job", 1}, {"attempt", 1}, {"rank", 0}, {"grace_ms", 100}, {"why", "test"}}));
  const auto end = controller.report<protocol::RankExited>({1, 1, 0});
  ASSERT_TRUE(end);
  EXPECT_EQ(end->signal, SIGTERM);
}

// Goal: a service is reported ready when its port answers well, and unready when it stops to. The test itself
// answers in place of the rank's program.
TEST_F(WorkerProcessTest, AServiceIsReadyWhileItAnswersWell) {
  SmallController controller(path_, 1);
  std::atomic<int> status = 503;
  http::Router router;
  router.add("GET", "/health", [&](const http::Request&, const http::ResponseWriterPtr& writer) {
    writer->respond(http::Response::text(status, ""));
  });
  const int port = http::Server::start({}, router.handler()).value()->port();  // free again at once
  start_worker();
  controller.first_request();
  Json service = start({1, 1, 0}, "exec sleep 1000");
  service["kind"] = "service";
  service["port"] = port;
  service["health"] = Json::object(
      {{"path", "/health"}, {"interval_ms", 20}, {"timeout_ms", 500}, {"start_timeout_ms", 60000}});
  controller.send(service);
  ASSERT_TRUE(controller.report<protocol::RankStarted>({1, 1, 0}));
  const auto replica = http::Server::start({.host = "127.0.0.1", .port = port}, router.handler());
  ASSERT_TRUE(replica) << replica.error().message;
  ::usleep(300'000);
  EXPECT_FALSE(controller.has_report<protocol::RankReady>({1, 1, 0}));
  status = 200;
  const auto ready = controller.report<protocol::RankReady>({1, 1, 0});
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->port, port);
  status = 500;
  const auto unready = controller.report<protocol::RankUnready>({1, 1, 0});
  ASSERT_TRUE(unready);
  EXPECT_EQ(unready->why, "GET /health answers 500");
}

// Goal: a service that never becomes ready is stopped, so that it can start anew.
TEST_F(WorkerProcessTest, AServiceThatDoesNotBecomeReadyIsStopped) {
  SmallController controller(path_, 1);
  start_worker();
  Json service = start({1, 1, 0}, "exec sleep 1000");
  service["kind"] = "service";
  service["port"] = http::Server::start({}, http::Router()).value()->port();  // nothing answers there any more
  service["health"] = Json::object(
      {{"path", "/health"}, {"interval_ms", 20}, {"timeout_ms", 100}, {"start_timeout_ms", 200}});
  controller.send(service);
  ASSERT_TRUE(controller.report<protocol::RankUnready>({1, 1, 0}));
  EXPECT_EQ(controller.report<protocol::RankExited>({1, 1, 0})->signal, SIGTERM);
}

// Goal: whatever moment a worker is killed at, no rank starts twice, every start is answered by an end, and
// nothing is left running. Starts and stops go on meanwhile.
TEST_F(WorkerProcessTest, NothingRunsTwiceWhateverMomentAWorkerIsKilledAt) {
  SmallController controller(path_, 1);
  const std::string starts = path_ / "starts";
  Prng prng(42);
  std::int64_t job = 0;
  start_worker();
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 3; ++i) {
      const RankId id{++job, 1, 0};
      controller.send(
          start(id, fmt::format("echo {} >> {}; sleep 0.{:02}; exit 0", id.job, starts, prng.below(50))));
      if (prng.below(4) == 0) {
        controller.send(Json::object({{"type", "stop_rank"},
                                      {"job", id.job},
                                      {"attempt", 1},
                                      {"rank", 0},
                                      {"grace_ms", 200},
                                      {"why", "test"}}));
      }
    }
    ::usleep(static_cast<useconds_t>(prng.below(60'000)));
    end_worker(SIGKILL);
    start_worker();
  }
  for (std::int64_t each = 1; each <= job; ++each) EXPECT_TRUE(controller.has_ended({each, 1, 0})) << each;
  const std::string text = read_file(starts).value();
  std::map<std::string, int> counts;
  for (const auto line : split(trim(text), '\n')) ++counts[std::string(line)];
  for (const auto& [line, count] : counts) EXPECT_EQ(count, 1) << "job " << line;
  EXPECT_GT(counts.size(), static_cast<std::size_t>(job) / 2);
}

}  // namespace
}  // namespace capstan::worker

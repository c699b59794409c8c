// Goal: sessions do what their clients rely on: processes with input, output, terminals and ends; files; pauses; timeouts;
// limits; snapshots; what was used. Method: a real launcher (skipped where the host cannot enforce sandboxes) and an event
// loop of the test's own.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <thread>

#include "agents/sessions/directory_watch.h"
#include "agents/sessions/interpreter.h"
#include "agents/sessions/paths.h"
#include "agents/sessions/sessions_testing.h"
#include "base/file.h"
#include "base/log.h"

namespace capstan::agents {
namespace {

TEST(Paths, BeginAtHomeAndStayInside) {
  EXPECT_EQ(*path_inside("a/b"), "/work/a/b");
  EXPECT_EQ(*path_inside("~/a"), "/work/a");
  EXPECT_EQ(*path_inside("/home/user"), "/work");
  EXPECT_EQ(*path_inside("/home/user2/x"), "/home/user2/x");
  EXPECT_EQ(*path_inside("../../../etc/passwd"), "/etc/passwd");
  EXPECT_EQ(*path_inside("/a/./b//../c/"), "/a/c");
  EXPECT_EQ(*path_inside("/"), "/");
  EXPECT_EQ(shown_path("/work/a"), "/home/user/a");
  EXPECT_EQ(shown_path("/workshop"), "/workshop");
  EXPECT_FALSE(path_inside(""));
  EXPECT_FALSE(path_inside(std::string_view("a\0b", 3)));
}

TEST_F(Sessions, CommandsShareFilesAndEndWithTheirExitCode) {
  const auto session = make({.env = {{"NAME", "value"}}});
  EXPECT_EQ(shell(session, "echo $NAME $HOME; pwd -P; echo text > a"), "value /home/user\n/work\n");
  EXPECT_EQ(*session->read("a"), "text\n");
  EXPECT_EQ(shell(session, "cat a; exit 4", 4), "text\n");
  EXPECT_TRUE(session->processes().empty());
}

TEST_F(Sessions, OutputOfManyMegabytesWaitsForTheSlowestListener) {
  class Slow final : public ProcessListener {
   public:
    void on_output(Channel, std::string_view bytes) override { pending += bytes.size(), total += bytes.size(); }
    void on_end(const Result<sandbox::CommandResult>&) override { over = true; }
    std::size_t backlog_bytes() override { return pending; }
    void when_caught_up(std::function<void()> callback) override {
      highest = std::max(highest, pending);
      pending = 0;
      callback();
    }
    std::size_t pending = 0, highest = 0;
    std::atomic<std::size_t> total{0};
    std::atomic<bool> over{false};
  };
  const auto session = make();
  const auto slow = std::make_shared<Slow>();
  ASSERT_TRUE(session->start({.argv = {"/usr/bin/head", "-c", "20000000", "/dev/zero"}}, slow));
  until("it ended", [&] { return slow->over.load(); });
  EXPECT_EQ(slow->total, 20'000'000u);
  EXPECT_GT(slow->highest, kBacklogBytesMax);
  EXPECT_LE(slow->highest, kBacklogBytesMax + (64u << 10));
}

TEST_F(Sessions, ADaemonThatKeepsTheOutputOpenDelaysNothing) {
  const auto session = make();
  EXPECT_EQ(shell(session, "sleep 1000 & echo done"), "done\n");
}

TEST_F(Sessions, InputReachesAProgramUntilItIsClosed) {
  const auto session = make();
  const auto kept = std::make_shared<Kept>();
  const auto process = session->start({.argv = {"/bin/cat"}, .input = true}, kept);
  ASSERT_TRUE(process);
  const std::string large(300'000, 'x');  // more than a pipe holds
  ASSERT_TRUE((*process)->write_input(large));
  ASSERT_TRUE((*process)->close_input());
  EXPECT_FALSE((*process)->close_input());
  ASSERT_TRUE(kept->wait());
  EXPECT_EQ(kept->out, large);
}

TEST_F(Sessions, AProgramThatDoesNotExistIsAnErrorOfTheProcess) {
  const auto session = make();
  const auto kept = std::make_shared<Kept>();
  ASSERT_TRUE(session->start({.argv = {"/no/such/program"}}, kept));
  const auto result = kept->wait();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Code::kNotFound);
  EXPECT_FALSE(session->start({.argv = {"/bin/true"}, .cwd = "/nowhere"}, nullptr));
}

TEST_F(Sessions, WhoResumesSaysForHowLongOrKeepsWhatWasLeft) {
  const auto keeps = make({.timeout_ms = 600'000}), says = make({.timeout_ms = 600'000});
  for (const auto& session : {keeps, says}) ASSERT_TRUE(session->pause());
  const std::int64_t now_ms = unix_ms();
  ASSERT_TRUE(keeps->resume(60'000, true));
  ASSERT_TRUE(says->resume(60'000));
  EXPECT_GT(keeps->ends_ms(), now_ms + 300'000);
  EXPECT_LT(says->ends_ms(), now_ms + 300'000);
}

TEST_F(Sessions, ATimeoutEndsASessionOrPausesIt) {
  const auto ends = make({.timeout_ms = 300});
  const auto pauses = make({.timeout_ms = 300, .pause_at_end = true, .auto_resume = true});
  until("one is not found", [&] { return !manager_->find(ends->id(), Owner{}); });
  until("it ended", [&] { return ends->state() == Session::State::kEnded; });
  until("the other paused", [&] { return pauses->state() == Session::State::kPaused; });
  EXPECT_FALSE(pauses->start({.argv = {"/bin/true"}}, nullptr));
  EXPECT_TRUE(pauses->wake());  // auto_resume
  EXPECT_EQ(shell(pauses, "echo on"), "on\n");
}

TEST_F(Sessions, LimitsOnTheirNumberRefuseAndLeaveRoomAgain) {
  open({.sessions_max = 3, .sessions_of_project_max = 2});
  const Owner other{.organisation = 1, .project = 9, .key = 0};
  const auto first = make(), second = make();
  const auto third = manager_->create({});
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, Code::kExhausted);
  ASSERT_TRUE(manager_->create({.owner = other}));
  EXPECT_FALSE(manager_->create({.owner = other}));
  EXPECT_FALSE(manager_->find(first->id(), other));  // not its project's
  EXPECT_FALSE(manager_->find(first->id(), second->token()));
  ASSERT_TRUE(manager_->end(first->id(), Owner{}));
  EXPECT_TRUE(manager_->create({}));
}

TEST_F(Sessions, WhatWasUsedIsRecordedInPartsUntilItIsSettled) {
  open({.sample_every_ms = 100, .record_every_ms = 300});
  const auto session = make({.owner = {2, 3, 4}});
  shell(session, "head -c 50m /dev/zero | tail -c 1 > /dev/null; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
  ASSERT_TRUE(session->write("f", "12345"));
  until("a part was recorded", [&] { return !manager_->usage(10).records.empty(); });
  ASSERT_TRUE(manager_->end(session->id(), {2, 3, 4}));
  const auto batch = manager_->usage(1'000);
  ASSERT_GE(batch.records.size(), 2u);
  store::ComputeSum sum;
  for (const auto& record : batch.records) {
    EXPECT_EQ(record.project, 3);
    sum.runs += record.sum.runs;
    sum.cpu_us += record.sum.cpu_us;
    sum.bytes_in += record.sum.bytes_in;
    sum.wall_ms += record.sum.wall_ms;
  }
  EXPECT_EQ(sum.runs, 1);
  EXPECT_GT(sum.cpu_us, 0);
  EXPECT_EQ(sum.bytes_in, 5);
  EXPECT_GT(sum.wall_ms, 0);
  manager_->settle(batch.last - 1);
  EXPECT_EQ(manager_->usage(1'000).records.size(), 1u);
  manager_->settle(batch.last);
  EXPECT_TRUE(manager_->usage(1'000).records.empty());
}

TEST_F(Sessions, WhatWasUsedWhenAManagerIsKilledIsThereForTheNext) {
  open({.sample_every_ms = 100, .record_every_ms = 3'600'000});
  const auto session = make({.owner = {2, 3, 4}});
  shell(session, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
  ASSERT_TRUE(session->write("f", "12345"));
  const auto file = directory_ / "usage.json", copy = directory_ / "as-it-was";
  until("a sample of it was saved", [&] {
    std::int64_t cpu_us = 0, bytes_in = 0;
    for (const auto& one : UsageFile(file).load()) cpu_us += one.sum.cpu_us, bytes_in += one.sum.bytes_in;
    return cpu_us > 0 && bytes_in == 5;
  });
  std::filesystem::copy_file(file, copy);
  open({});  // the end of the first was in order: its file is replaced by what a killed one leaves
  manager_.reset();
  std::filesystem::rename(copy, file);
  open({});
  const auto batch = manager_->usage(10);
  ASSERT_FALSE(batch.records.empty());
  EXPECT_EQ(batch.records[0].id, "sandbox/" + session->id() + "/0");
  std::int64_t runs = 0;
  for (const auto& one : batch.records) {
    EXPECT_EQ(one.project, 3);
    runs += one.sum.runs;
  }
  EXPECT_EQ(runs, 1);
  manager_->settle(1);
  EXPECT_EQ(manager_->usage(10).records.size(), batch.records.size()) << "a number of an earlier manager settles nothing";
  manager_->settle(batch.last);
  manager_.reset();
  EXPECT_TRUE(UsageFile(file).load().empty()) << "what is settled is not told again";
}

TEST_F(Sessions, OneThatRetiresHasNoSessionAndMakesNone) {
  open({});
  const auto session = make({});
  EXPECT_FALSE(manager_->retire());
  ASSERT_TRUE(manager_->end(session->id(), {}));
  EXPECT_TRUE(manager_->retire());
  EXPECT_EQ(manager_->create({}).error().code, Code::kUnavailable);
}

TEST_F(Sessions, APlacedOneIsItsProjectsAndOpenToWhoOperates) {
  const Placed bench{.name = "bench", .tenant = "web", .memory_bytes = 64 << 20, .milli_cpus = 500, .workload = 7};
  const auto placed = make({.owner = {.organisation = 2, .project = 3}, .placed = bench});
  const auto own = make({.owner = {.organisation = 2, .project = 3}});
  EXPECT_TRUE(placed->id().starts_with("w7x")) << placed->id();
  const Owner other{.organisation = 2, .project = 4}, operates{.operates = true};
  for (const std::string& name : {std::string("bench"), placed->id()}) {
    EXPECT_TRUE(manager_->find(name, placed->terms().owner));
    EXPECT_TRUE(manager_->find(name, operates));
    EXPECT_EQ(manager_->find(name, other).error().code, Code::kNotFound);
  }
  EXPECT_EQ(manager_->find(own->id(), operates).error().code, Code::kNotFound) << "only what was placed";
  EXPECT_EQ(manager_->list(placed->terms().owner).size(), 2u);
  EXPECT_EQ(manager_->list(operates).size(), 1u);
  EXPECT_TRUE(manager_->list(other).empty());
  for (const Owner& owner : {other, operates, placed->terms().owner})
    EXPECT_EQ(header_of(owner_of(header_of(owner))), header_of(owner));
  EXPECT_EQ(owner_of("1/1/0/most").project, 0);
  ASSERT_TRUE(manager_->end(placed->id(), operates));
  const auto used = manager_->usage(10).records;
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].project, 3);
}

TEST_F(Sessions, ASnapshotKeepsFilesLinksAndModesOnly) {
  const auto session = make();
  shell(session, "mkdir d; echo kept > d/f; chmod 700 d/f; ln -s f d/link; mkfifo pipe; echo tmp > /tmp/t");
  const auto id = manager_->templates().snapshot(*session, "mine");
  ASSERT_TRUE(id) << id.error().message;
  const auto copy = make({.template_name = "mine"});
  ASSERT_TRUE(copy);
  EXPECT_EQ(shell(copy, "cat d/link; stat -c %a d/f; stat -c %U d/link; ls; ls /tmp"), "kept\n700\nuser\nd\n");
  const Owner other{.organisation = 1, .project = 9, .key = 0};
  EXPECT_FALSE(manager_->templates().find(*id, other));
  EXPECT_FALSE(manager_->templates().snapshot(*session, "../evil"));
  ASSERT_TRUE(manager_->templates().remove(*id, Owner{}));
  EXPECT_FALSE(manager_->create({.template_name = "mine"}));
}

TEST_F(Sessions, TemplatesAreFilesWithLimitsOfTheirOwn) {
  template_file("small", R"({"memory_mib": 64, "disk_mib": 1, "env": {"A": "b"}})");
  const auto session = make({.template_name = "small"});
  ASSERT_TRUE(session);
  EXPECT_EQ(session->limits().memory_bytes, 64 << 20);
  EXPECT_EQ(shell(session, "echo $A; head -c 2m /dev/zero > f 2>/dev/null || echo full"), "b\nfull\n");
  template_file("wrong", R"({"memory": 64})");
  const auto wrong = manager_->create({.template_name = "wrong"});
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("'memory' is unknown"), std::string::npos);
}

TEST_F(Sessions, CreationsTakeWhatWasMadeAheadAndThePoolRefillsWithinTheLimits) {
  const auto waiting = [&](std::size_t count) {
    return [this, count] {
      const auto warm = manager_->warm();
      const auto found = warm.find("hot");
      return (found == warm.end() ? 0 : found->second) == count;
    };
  };
  template_file("hot", R"({"warm": 2, "network": {"allow": ["good.test"]}})");
  open({.sessions_max = 4});
  until("two wait", waiting(2));
  std::vector<SessionPtr> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(make({.template_name = "hot", .env = {{"N", std::to_string(i)}}}));
    ASSERT_TRUE(all.back());
    EXPECT_EQ(shell(all.back(), "echo $N $HTTP_PROXY; ls"), fmt::format("{} http://127.0.0.1:3128\n", i));
    EXPECT_EQ(all.back()->hosts().text(), "good.test");
    if (i == 0) until("it refilled", waiting(2));
  }
  until("one waits: with three sessions there is room for no more", waiting(1));
  all.push_back(make());  // of another template: what waits makes room
  until("none waits", waiting(0));
  EXPECT_EQ(manager_->create({.template_name = "hot"}).error().code, Code::kExhausted);
  for (const auto& session : all) ASSERT_TRUE(manager_->end(session->id(), Owner{}));
  until("two wait again", waiting(2));
  template_file("hot", R"({"warm": 1, "env": {"NEW": "yes"}})");
  until("one of the new kind waits", waiting(1));
  EXPECT_EQ(shell(make({.template_name = "hot"}), "echo $NEW$HTTP_PROXY"), "yes\n");
  std::filesystem::remove(directory_ / "templates/hot.json");
  until("none waits", waiting(0));
}

TEST_F(Sessions, ThePythonOfOneThatWasMadeAheadHasTheVariablesOfItsSession) {
  template_file("hot", R"({"warm": 1, "env": {"A": "its", "B": "its"}, "network": {"allow": ["good.test"]}})");
  const auto waits = [&] { return manager_->warm()["hot"] == 1; };
  const std::string show = "import os, sys\n"
                           "print(*map(os.environ.get, 'AB'), os.environ.get('http_proxy'), sys.flags.hash_randomization)";
  const auto told = [&](const SessionPtr& session) {
    EXPECT_EQ(session->interpreter().list().size(), 1u);  // it was there before anybody asked
    EXPECT_TRUE(session->processes().empty());
    return run_code(session, show);
  };
  const std::string proxy = " http://127.0.0.1:3128";
  until("one waits", waits);
  EXPECT_NE(told(make({.template_name = "hot", .env = {{"A", "mine"}}})).find("mine its" + proxy + " 1"), std::string::npos);
  until("another waits", waits);
  const auto seeded = told(make({.template_name = "hot",
                                 .env = {{"PYTHONHASHSEED", "0"}},
                                 .network = {.kind = NetworkWish::Kind::kNone}}));
  EXPECT_NE(seeded.find("its its None 0"), std::string::npos) << seeded;
}

TEST_F(Sessions, ATarballBecomesTheRootOfItsTemplatesSessions) {
  std::filesystem::create_directories(directory_ / "made/bin");
  std::filesystem::copy_file("/sbin/ldconfig", directory_ / "made/bin/ldconfig");  // static: needs nothing else
  const std::string tarball = directory_ / "root.tar.gz";
  ASSERT_EQ(std::system(("tar -C " + (directory_ / "made").string() + " -czf " + tarball + " .").c_str()), 0);
  template_file("image", R"({"tarball": ")" + tarball + R"("})");
  const auto session = make({.template_name = "image"});
  ASSERT_TRUE(session);
  const auto kept = std::make_shared<Kept>();
  ASSERT_TRUE(session->start({.argv = {"/bin/ldconfig", "--version"}}, kept));
  const auto result = kept->wait();
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_NE(kept->out.find("ldconfig"), std::string::npos) << result->exit_code << kept->out << kept->err;
  EXPECT_FALSE(session->start({.argv = {"/bin/sh"}, .cwd = "/usr"}, nullptr));  // nothing of this host's is there
  template_file("gone", R"({"tarball": "/no/such.tar"})");
  EXPECT_EQ(manager_->create({.template_name = "gone"}).error().code, Code::kNotFound);
}

// Goal: a sandbox reaches what is listed, through the proxy and in no other way. Method: a server on this host's loopback,
// listed by its address, and a resolver that leads every name there.
TEST_F(Sessions, ListedHostsAreReachedThroughTheProxyAndNothingElseIs) {
  const sandbox::Fd server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(server.get(), 8), 0);
  ::getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const int port = ntohs(address.sin_port);
  std::thread serving([&] {
    for (;;) {
      const sandbox::Fd peer(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer) return;
      char request[4096];
      (void)!::read(peer.get(), request, sizeof request);
      constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached";
      (void)!::send(peer.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL);
    }
  });
  constexpr const char* kNet = R"({{"network": {{"allow": ["good.test:{0}", "127.0.0.1:{0}"], "on_request": ["other.test"]}}}})";
  template_file("net", fmt::format(fmt::runtime(kNet), port));
  const auto session = make({.owner = {2, 3, 4}, .template_name = "net"});
  ASSERT_TRUE(session);
  const std::string get = "import urllib.request as u, sys\ntry: print(u.urlopen(sys.argv[1], timeout=10).read().decode())\n"
                          "except Exception as e: print(type(e).__name__, e, e.read().decode() if hasattr(e, 'read') else '')";
  ASSERT_TRUE(session->write("get.py", get));
  const auto fetch = [&](const std::string& url) { return shell(session, "python3 get.py " + url); };
  EXPECT_EQ(fetch(fmt::format("http://good.test:{}/", port)), "reached\n");
  const std::string refused = fetch("http://other.test/");
  EXPECT_NE(refused.find("403"), refused.npos) << refused;
  EXPECT_NE(refused.find("good.test"), refused.npos) << refused;
  // Around the proxy there is nothing: neither this host's loopback nor any route.
  ASSERT_TRUE(session->write("direct.sh", fmt::format("(exec 3<>/dev/tcp/127.0.0.1/{}) 2>&1 | grep -o -m1 refused\n"
                                                      "(exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 | grep -o -m1 unreachable", port)));
  EXPECT_EQ(shell(session, "bash direct.sh"), "refused\nunreachable\n");
  // Asking for more than the template permits is refused; for what it permits on request, granted: but it is no public place.
  EXPECT_EQ(session->set_network({.kind = NetworkWish::Kind::kListed, .hosts = {"evil.test"}}).error().code, Code::kDenied);
  ASSERT_TRUE(session->set_network({.kind = NetworkWish::Kind::kListed, .hosts = {"other.test"}}));
  EXPECT_NE(fetch("http://other.test/").find("leads to 127.0.0.1"), std::string::npos);
  EXPECT_NE(fetch(fmt::format("http://good.test:{}/", port)).find("403"), std::string::npos);
  EXPECT_EQ(shell(make({.template_name = "net", .network = {.kind = NetworkWish::Kind::kNone}}), "echo $HTTPS_PROXY"), "\n");
  EXPECT_EQ(manager_->create({.network = {.kind = NetworkWish::Kind::kAll}}).error().code, Code::kDenied);
  ASSERT_TRUE(manager_->end(session->id(), {2, 3, 4}));
  std::int64_t out = 0;
  for (const auto& record : manager_->usage(100).records) out += record.project == 3 ? record.sum.bytes_out : 0;
  EXPECT_GT(out, 50);  // the request's bytes
  ::shutdown(server.get(), SHUT_RDWR);
  serving.join();
}

TEST_F(Sessions, ADirectoryIsWatchedBelowWhatIsMadeLater) {
  const auto session = make();
  std::mutex mutex;
  std::vector<std::string> seen;
  const auto watch = DirectoryWatch::start(loop_, session->root_fd(), "/work", {.recursive = true},
                                           [&](Change change, const std::string& name) {
                                             const std::lock_guard lock(mutex);
                                             seen.push_back(fmt::format("{} {}", static_cast<int>(change), name));
                                           });
  ASSERT_TRUE(watch) << watch.error().message;
  const auto has = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    return std::ranges::find(seen, line) != seen.end();
  };
  // What is made before its directory is watched is told when the watch begins, so it must still be there then.
  shell(session, "mkdir -p a/b; echo 1 > a/b/f");
  until("what was made was seen", [&] { return has("0 a") && has("0 a/b") && has("0 a/b/f"); });
  shell(session, "mv a/b/f a/g; rm a/g");
  until("what went was seen", [&] { return has("2 a/g"); });
  (*watch)->stop();
}

TEST_F(Sessions, CodeKeepsItsVariablesAndAbandonedCellsAreInterrupted) {
  const auto session = make();
  const auto run = [&](const std::string& code) { return run_code(session, code); };
  run("x = 1");
  EXPECT_NE(run("x + 1").find("\"text\": \"2\""), std::string::npos);
  const auto endless = std::make_shared<Lines>();
  ASSERT_TRUE(session->interpreter().execute({.code = "print('begun', flush=True)\nwhile True: pass"}, endless));
  until("it began", [&] {
    const std::lock_guard lock(endless->mutex);
    return endless->lines.find("begun") != std::string::npos;
  });
  session->interpreter().abandon(endless);
  EXPECT_NE(run("x").find("\"text\": \"1\""), std::string::npos);
  EXPECT_FALSE(session->interpreter().execute({.code = "1", .language = "cobol"}, endless));
}

}  // namespace
}  // namespace capstan::agents

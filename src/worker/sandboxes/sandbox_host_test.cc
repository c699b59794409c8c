// Goal: the worker's port is a way to its host's session host for who has the right token, and says so where there is none.
// Method: a session host that the test plays: a server, and the address file, held locked as the real one does.
#include "worker/sandboxes/sandbox_host.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "base/build_id.h"
#include "base/file.h"
#include "http/client.h"
#include "worker/sandboxes/sandbox_relay.h"

namespace capstan::worker {
namespace {

class SandboxHostTest : public testing::Test {
 protected:
  SandboxHostTest() {
    std::filesystem::create_directories(path_);
    data_.emplace(*DataDirectory::open(path_));
  }
  ~SandboxHostTest() override {
    worker_.reset();
    std::filesystem::remove_all(path_);
  }

  // Plays a session host that runs; it answers what it was asked.
  void begin() {
    http::Router router;
    router.add("POST", "/{rest...}", [](const http::Request& request, const http::ResponseWriterPtr& writer) {
      Json seen = Json::object({{"target", request.target}, {"body", request.body}});
      for (const char* name : {"x-capstan-host-token", "x-capstan-owner", "authorization"})
        seen[name] = request.headers.get(name);
      writer->respond(http::Response::json(201, seen));
    });
    router.add("GET", "/much", [](const http::Request&, const http::ResponseWriterPtr& writer) {
      writer->start(200, {});
      for (int i = 0; i < 40; ++i) writer->write(std::string(1 << 18, 'x'));
      writer->finish();
    });
    host_server_ = *http::Server::start({.threads = 2}, router);
    announce(Json::object({{"pid", ::getpid()}, {"port", host_server_->port()}, {"token", "of-host"}}));
  }
  void announce(const Json& address) {
    const auto file = path_ / "worker/session-host.json";
    ASSERT_TRUE(write_file_atomic(file, address.dump(), 0600));
    lock_ = Descriptor(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::flock(lock_.get(), LOCK_EX | LOCK_NB), 0);
  }
  void serve() {
    http::Router router;
    add_sandbox_routes(router, host_, "secret", "i1");
    worker_ = *http::Server::start({.threads = 2}, router);
  }
  http::Response ask(http::Request request, const std::string& token = relay_token("secret", "i1")) {
    request.headers.set("x-capstan-host-token", token);
    auto answer = client_.request(fmt::format("http://127.0.0.1:{}", worker_->port()), request, {});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? *answer : http::Response{.status = 0};
  }

  const std::filesystem::path path_ = std::filesystem::temp_directory_path() / ("sandbox-host-test-" + random_hex(6));
  std::optional<DataDirectory> data_;
  SessionHostProcess host_{*data_, "/bin/true", {"session-host"}};
  std::unique_ptr<http::Server> host_server_, worker_;
  Descriptor lock_;
  http::Client client_;
};

TEST_F(SandboxHostTest, RequestsPassWithTheHostsOwnTokenAndAnswersSayWhoseTheyAre) {
  begin();
  serve();
  const auto answer = ask({.method = "POST",
                           .target = "/session-host/sandboxes/a%2Fb?x=1",
                           .headers = {{"x-capstan-owner", "1/7/3"}, {"authorization", "Basic dTo="}},
                           .body = "hello"});
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.headers.get(kWorkerHeader), "i1");
  const Json seen = *Json::parse(answer.body);
  EXPECT_EQ(seen.get_string("target"), "/sandboxes/a%2Fb?x=1");
  EXPECT_EQ(seen.get_string("body"), "hello");
  EXPECT_EQ(seen.get_string("x-capstan-host-token"), "of-host");
  EXPECT_EQ(seen.get_string("x-capstan-owner"), "1/7/3");
  EXPECT_EQ(seen.get_string("authorization"), "Basic dTo=");
  EXPECT_EQ(ask({.target = "/session-host/much"}).body.size(), 40u << 18);
}

TEST_F(SandboxHostTest, AWrongTokenOpensNothing) {
  begin();
  serve();
  for (const std::string& wrong : {std::string(), std::string("secret"), std::string("of-host"), relay_token("secret", "i2")})
    EXPECT_EQ(ask({.method = "POST", .target = "/session-host/host/end"}, wrong).status, 403) << wrong;
}

// A session host of another build, with sessions for a while; `program` is what the worker would start in its place.
TEST_F(SandboxHostTest, OneOfAnotherBuildIsAskedToLeaveAndReplacedAndOneOfThisBuildIsNot) {
  std::atomic<int> asked{0};
  std::atomic<bool> busy{true};
  http::Router router;
  router.add("POST", "/host/retire", [&](const http::Request&, const http::ResponseWriterPtr& writer) {
    ++asked;
    writer->respond(busy ? http::Response::json(409, Json::object({{"message", "1 sessions are left"}}))
                         : http::Response{.status = 204});
  });
  host_server_ = *http::Server::start({.threads = 2}, router);
  const auto started = path_ / "started";
  SessionHostProcess host(*data_, "/usr/bin/touch", {started.string()});
  Json address = Json::object({{"pid", ::getpid()}, {"port", host_server_->port()}, {"token", "t"}, {"build", build_id()}});
  announce(address);
  host.keep();
  EXPECT_EQ(asked, 0);
  address["build"] = "another";
  announce(address);
  const auto keep_until = [&](const auto& done) {
    for (int i = 0; i < 500 && !done(); ++i, ::usleep(20'000)) host.keep();
    return done();
  };
  EXPECT_TRUE(keep_until([&] { return asked >= 2; })) << "it is asked again while it has sessions";
  busy = false;
  const int before = asked;
  EXPECT_TRUE(keep_until([&] { return asked > before; }));
  EXPECT_FALSE(std::filesystem::exists(started)) << "two at once";
  lock_.reset();  // it has left
  EXPECT_TRUE(keep_until([&] { return std::filesystem::exists(started); }));
}

TEST_F(SandboxHostTest, AHostWithoutASessionHostSaysSo) {
  serve();
  const auto answer = ask({.target = "/session-host/v2/sandboxes"});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.get(kWorkerHeader), "i1");
  EXPECT_NE(answer.body.find("does not run"), answer.body.npos) << answer.body;
}

}  // namespace
}  // namespace capstan::worker

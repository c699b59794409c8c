// Goal: calls of the loop's client over real sockets: of HTTP/1.1 and of HTTP/2 alike, and what only shared connections have.
#include "http/async_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "http/server.h"

namespace capstan::http {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kLarge = 5u << 20;

std::string pattern(std::size_t bytes) {
  std::string text(bytes, ' ');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

// Sockets of this process that are connected to `port`.
int connections_to(int port) {
  std::ifstream table("/proc/self/net/tcp");
  const std::string wanted = fmt::format(":{:04X} 01 ", port);
  int count = 0;
  for (std::string line; std::getline(table, line);) count += line.find(wanted) != std::string::npos;
  return count;
}

// A listener that answers every connection with `bytes`.
class Mute {
 public:
  explicit Mute(std::string bytes) : bytes_(std::move(bytes)), fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_, 16), 0);
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      std::vector<int> clients;
      for (int client; (client = ::accept(fd_, nullptr, nullptr)) >= 0; clients.push_back(client)) {
        ++accepted;
        (void)!::write(client, bytes_.data(), bytes_.size());
      }
      for (const int client : clients) ::close(client);
    });
  }
  ~Mute() {
    ::shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  int port = 0;
  std::atomic<int> accepted{0};

 private:
  const std::string bytes_;
  int fd_;
  std::thread thread_;
};

class AsyncClientTest : public testing::TestWithParam<bool> {
 protected:
  // One call and what came of it; made and ended on the loop.
  struct Flight final : CallSink {
    explicit Flight(AsyncClientTest& t) : test(t) {}
    void on_head(Response& response) override {
      const std::scoped_lock lock(test.mutex_);
      head = response;
    }
    void on_piece(std::string_view piece) override {
      {
        const std::scoped_lock lock(test.mutex_);
        body += piece;
      }
      if (on_bytes) on_bytes();
      test.changed_.notify_all();
    }
    void on_end(Result<void> result) override {
      const std::scoped_lock lock(test.mutex_);
      end = std::move(result);
      test.changed_.notify_all();
    }
    AsyncClientTest& test;
    std::string sent;
    Response head;
    std::string body;
    std::optional<Result<void>> end;
    std::function<void()> on_bytes;
    std::unique_ptr<AsyncCall> call;
  };
  using FlightPtr = std::shared_ptr<Flight>;

  void SetUp() override {
    serve();
    loop_thread_ = std::thread([this] { loop_.run(); });
    on_loop([this] { client_ = std::make_unique<AsyncClient>(loop_); });
  }
  void TearDown() override {
    on_loop([this] {
      for (const auto& flight : flights_) flight->call.reset();
      client_.reset();
    });
    loop_.stop();
    loop_thread_.join();
    const std::scoped_lock lock(mutex_);
    kept_.clear();
  }

  void serve(int port = 0) {
    Router router;
    router.add("POST", "/echo", [](const Request& request, const ResponseWriterPtr& writer) {
      Response answer = Response::text(200, request.body);
      answer.headers.set("x-of", request.headers.get("x-request-id"));
      writer->respond(std::move(answer));
    });
    router.add("GET", "/count", [](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {{"content-type", "text/event-stream"}});
      for (int i = 0; i < 100; ++i) writer->write(sse_event(std::to_string(i)));
      writer->finish();
    });
    router.add("GET", "/large", [](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {});
      const std::string text = pattern(kLarge);
      for (std::size_t at = 0; at < text.size(); at += 50'000) writer->write(std::string_view(text).substr(at, 50'000));
      writer->finish();
    });
    router.add("GET", "/begun", [](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {});
      writer->write("first");
    });
    router.add("GET", "/kept", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->on_client_gone([this] { ++gone_; });
      writer->start(200, {});
      writer->write("first");
      const std::scoped_lock lock(mutex_);
      kept_.push_back(writer);
      changed_.notify_all();
    });
    auto server = Server::start({.port = port}, router);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }

  void on_loop(const std::function<void()>& what) {
    std::promise<void> done;
    loop_.post([&] {
      what();
      done.set_value();
    });
    done.get_future().wait();
  }
  FlightPtr start(Request head, std::string body = {}, CallOptions options = {}) {
    options.http2 = GetParam();
    auto flight = std::make_shared<Flight>(*this);
    flight->sent = std::move(body);
    on_loop([&] {
      flights_.push_back(flight);
      flight->call = client_->start(url_, head, flight->sent, options, *flight);
    });
    return flight;
  }
  bool until(const std::function<bool()>& check) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, check);
  }
  Result<void> end_of(const FlightPtr& flight) {
    if (!until([&] { return flight->end.has_value(); })) return fail(Code::kTimeout, "the test's call did not end");
    const std::scoped_lock lock(mutex_);
    return *flight->end;
  }
  static Request post(const std::string& id) { return {.method = "POST", .target = "/echo", .headers = {{"X-Request-Id", id}}}; }

  EventLoop loop_;
  std::thread loop_thread_;
  std::unique_ptr<Server> server_;
  std::string url_;
  std::unique_ptr<AsyncClient> client_;
  std::vector<FlightPtr> flights_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<ResponseWriterPtr> kept_;  // under mutex_
  std::atomic<int> gone_{0};
};

TEST_P(AsyncClientTest, WholeAnswersAndStreamsArrive) {
  const auto whole = start(post("one"), "hello");
  ASSERT_TRUE(end_of(whole));
  EXPECT_EQ(whole->head.status, 200);
  EXPECT_EQ(whole->head.headers.get("x-of"), "one");
  EXPECT_EQ(whole->body, "hello");
  const auto stream = start({.target = "/count"});
  ASSERT_TRUE(end_of(stream));
  std::string expected;
  for (int i = 0; i < 100; ++i) expected += sse_event(std::to_string(i));
  EXPECT_EQ(stream->body, expected);
  const auto missing = start({.target = "/nothing"});
  ASSERT_TRUE(end_of(missing));
  EXPECT_EQ(missing->head.status, 404);
  const auto empty = start({.method = "HEAD", .target = "/count"});
  ASSERT_TRUE(end_of(empty));
  EXPECT_EQ(empty->body, "");
}

TEST_P(AsyncClientTest, LargeBodiesPassBothWays) {
  const std::string text = pattern(kLarge);
  const auto up = start(post("up"), text);
  const auto down = start({.target = "/large"});
  ASSERT_TRUE(end_of(up));
  EXPECT_TRUE(up->body == text);
  ASSERT_TRUE(end_of(down));
  EXPECT_TRUE(down->body == text);
}

TEST_P(AsyncClientTest, APausedCallWaitsAndLosesNothing) {
  auto flight = std::make_shared<Flight>(*this);
  flight->on_bytes = [call = flight.get()] { call->call->pause(); };
  on_loop([&] {
    flights_.push_back(flight);
    flight->call = client_->start(url_, {.target = "/large"}, {}, {.http2 = GetParam()}, *flight);
  });
  ASSERT_TRUE(until([&] { return !flight->body.empty(); }));
  std::this_thread::sleep_for(100ms);
  const auto size = [&] {
    const std::scoped_lock lock(mutex_);
    return flight->body.size();
  };
  const std::size_t paused_at = size();
  EXPECT_LT(paused_at, kLarge / 4);
  const auto other = start(post("other"), "is not held up");  // on the same connection, of HTTP/2
  ASSERT_TRUE(end_of(other));
  EXPECT_EQ(size(), paused_at);
  on_loop([&] {
    flight->on_bytes = nullptr;
    flight->call->resume();
  });
  ASSERT_TRUE(end_of(flight));
  EXPECT_TRUE(flight->body == pattern(kLarge));
}

TEST_P(AsyncClientTest, AnAnswerKeepsItsOrderThroughManyPauses) {
  std::vector<FlightPtr> flights;
  for (int i = 0; i < 4; ++i) {
    auto flight = std::make_shared<Flight>(*this);
    flight->on_bytes = [this, call = flight.get()] {
      call->call->pause();
      loop_.post([call] {
        if (!call->end) call->call->resume();
      });
    };
    flights.push_back(flight);
  }
  on_loop([&] {
    for (const auto& flight : flights) {
      flights_.push_back(flight);
      flight->call = client_->start(url_, {.target = "/large"}, {}, {.http2 = GetParam()}, *flight);
    }
  });
  for (const auto& flight : flights) {
    ASSERT_TRUE(end_of(flight));
    EXPECT_TRUE(flight->body == pattern(kLarge));
  }
}

TEST_P(AsyncClientTest, GivingOneUpLeavesTheOthersAlone) {
  const auto left = start({.target = "/kept"});
  const auto stays = start({.target = "/kept"});
  ASSERT_TRUE(until([&] { return left->body == "first" && stays->body == "first"; }));
  on_loop([&] { left->call.reset(); });
  for (int i = 0; i < 1'000 && gone_ == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(gone_, 1);
  std::vector<ResponseWriterPtr> writers;
  {
    const std::scoped_lock lock(mutex_);
    writers = kept_;
  }
  for (const auto& writer : writers) {
    if (writer->client_gone()) continue;
    writer->write(" and last");
    writer->finish();
  }
  ASSERT_TRUE(end_of(stays));
  EXPECT_EQ(stays->body, "first and last");
}

TEST_P(AsyncClientTest, WhatBreaksOffIsAnError) {
  const auto under_way = start({.target = "/kept"});
  ASSERT_TRUE(until([&] { return under_way->body == "first"; }));
  EXPECT_FALSE(end_of(start({.target = "/begun"}))) << "its handler left without an end";
  server_->stop(0);
  const auto end = end_of(under_way);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kUnavailable) << end.error().message;
  const auto refused = end_of(start(post("late"), "x"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("cannot connect to 127.0.0.1"), std::string::npos) << refused.error().message;
}

TEST_P(AsyncClientTest, SilenceEndsACall) {
  const auto end = end_of(start({.target = "/kept"}, {}, {.silence_timeout_ms = 50}));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::kTimeout);
}

TEST_P(AsyncClientTest, AServerThatRestartedMeanwhileIsAskedAnew) {
  ASSERT_TRUE(end_of(start(post("before"), "x")));
  const int port = server_->port();
  server_.reset();
  serve(port);
  const auto after = start(post("after"), "y");
  ASSERT_TRUE(end_of(after));
  EXPECT_EQ(after->body, "y");
}

TEST_P(AsyncClientTest, AServerThatLeavesEndsWhatItBegan) {
  const auto under_way = start({.target = "/kept"});
  ASSERT_TRUE(until([&] { return under_way->body == "first"; }));
  std::thread stopping([this] { server_->stop(10'000); });
  std::this_thread::sleep_for(50ms);
  {
    const std::scoped_lock lock(mutex_);
    kept_.front()->write(" last");
    kept_.front()->finish();
  }
  const auto end = end_of(under_way);
  stopping.join();
  EXPECT_TRUE(end) << end.error().message;
  EXPECT_EQ(under_way->body, "first last");
}

INSTANTIATE_TEST_SUITE_P(OfBothVersions, AsyncClientTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Http2" : "Http1"; });

class SharedConnection : public AsyncClientTest {};
INSTANTIATE_TEST_SUITE_P(OfHttp2, SharedConnection, testing::Values(true));

TEST_P(SharedConnection, CarriesManyCallsAtOnce) {
  std::vector<FlightPtr> open;
  for (int i = 0; i < 600; ++i) open.push_back(start({.target = "/kept"}));
  ASSERT_TRUE(until([&] { return kept_.size() == 600; }));
  EXPECT_LE(connections_to(server_->port()), 8);
  std::vector<FlightPtr> echoes;
  for (int i = 0; i < 200; ++i) echoes.push_back(start(post(std::to_string(i)), std::to_string(i * i)));
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(end_of(echoes[static_cast<std::size_t>(i)]));
    EXPECT_EQ(echoes[static_cast<std::size_t>(i)]->body, std::to_string(i * i));
  }
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& writer : kept_) writer->finish();
  }
  for (const auto& flight : open) ASSERT_TRUE(end_of(flight));
}

TEST_P(SharedConnection, AServerThatDoesNotSpeakItIsNamed) {
  Mute mute("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
  url_ = fmt::format("http://127.0.0.1:{}", mute.port);
  const auto end = end_of(start(post("x"), "x"));
  ASSERT_FALSE(end);
  EXPECT_NE(end.error().message.find("does not speak HTTP/2"), std::string::npos) << end.error().message;
}

TEST_P(SharedConnection, ARequestThatNobodyTakesIsTriedAFewTimes) {
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  const std::string goes_away("\0\0\10\7\0\0\0\0\0\0\0\0\0\0\0\0\0", 17);  // its last stream is number 0
  Mute mute(settings + goes_away);
  url_ = fmt::format("http://127.0.0.1:{}", mute.port);
  EXPECT_FALSE(end_of(start(post("x"), "x")));
  EXPECT_EQ(mute.accepted, 4);
}

}  // namespace
}  // namespace capstan::http

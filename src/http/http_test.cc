// Goal: real sockets on the loopback: whole answers, streams, limits, hostile bytes, clients that leave.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/prng.h"
#include "http/client.h"
#include "http/loopback_testing.h"
#include "http/server.h"

namespace capstan::http {
namespace {

using namespace std::chrono_literals;

class HttpTest : public testing::Test {
 protected:
  void start(ServerOptions options = {}) {
    router_.add("GET", "/hello/{name}", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(
          Response::text(200, "hello " + request.param("name") + request.query_value("x").value_or("")));
    });
    router_.add("POST", "/echo", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, request.body));
    });
    router_.add("GET", "/count", [](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {{"content-type", "text/event-stream"}});
      for (int i = 0; i < 100; ++i) writer->write(sse_event(std::to_string(i)));
      writer->finish();
    });
    router_.add("GET", "/slow", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->on_client_gone([this] { ++gone_; });
      writer->start(200, {});
      writer->write("first");
      for (int i = 0; i < 500 && !writer->client_gone(); ++i) std::this_thread::sleep_for(10ms);
      ++ended_;
    });
    router_.add("GET", "/large", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {});
      for (int i = 0; i < 256 && writer->write(std::string(64u << 10, static_cast<char>('a' + i % 26))); ++i)
        ++written_;
      writer->finish();
    });
    router_.add("GET", "/kept", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->start(200, {});
      const std::scoped_lock lock(kept_mutex_);
      kept_.push_back(writer);
    });
    router_.add("GET", "/forgotten", [](const Request&, const ResponseWriterPtr&) {});
    auto server = Server::start(options, router_.handler());
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
  }

  // A connected socket whose reads give up after two seconds.
  int connected() { return connect_to(server_->port(), 2); }

  // Sends raw bytes and returns everything until the server closes (or two seconds pass).
  std::string raw(const std::string& bytes) {
    const int fd = connected();
    EXPECT_GE(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
    std::string answer;
    char buffer[4096];
    for (ssize_t count; (count = ::recv(fd, buffer, sizeof buffer, 0)) > 0;)
      answer.append(buffer, static_cast<std::size_t>(count));
    ::close(fd);
    return answer;
  }

  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 500; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }

  Router router_;
  std::atomic<int> gone_{0};
  std::atomic<int> ended_{0};
  std::atomic<int> written_{0};
  std::mutex kept_mutex_;
  std::vector<ResponseWriterPtr> kept_;
  std::unique_ptr<Server> server_;
  std::string url_;
  Client client_;
};

TEST_F(HttpTest, AnswersOverOneKeptConnection) {
  start();
  for (int i = 0; i < 50; ++i) {
    const auto answer = client_.request(url_, {.target = "/hello/a%20b?x=%2F"}, {});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, "hello a b/");
  }
  const std::string large(3 << 20, 'x');
  EXPECT_EQ(client_.request(url_, {.method = "POST", .target = "/echo", .body = large}, {})->body, large);
}

TEST_F(HttpTest, UnknownPathsAndMethodsSayWhatWouldBeRight) {
  start();
  EXPECT_EQ(client_.request(url_, {.target = "/nothing"}, {})->status, 404);
  const auto answer = client_.request(url_, {.method = "DELETE", .target = "/echo"}, {});
  EXPECT_EQ(answer->status, 405);
  EXPECT_EQ(answer->headers.get("Allow"), "POST");
  EXPECT_EQ(client_.request(url_, {.target = "/forgotten"}, {})->status, 500);
}

TEST_F(HttpTest, StreamArrivesWholeAndInOrder) {
  start();
  std::vector<std::string> events;
  SseParser parser([&](std::string_view, std::string_view data) { events.emplace_back(data); });
  const auto result = client_.stream(
      url_, {.target = "/count"}, {}, [](const Response& head) { return head.status == 200; },
      [&](std::string_view piece) { return parser.feed(piece), true; });
  ASSERT_TRUE(result) << result.error().message;
  ASSERT_EQ(events.size(), 100u);
  EXPECT_EQ(events[99], "99");
}

TEST_F(HttpTest, AHandlerLearnsThatItsClientLeft) {
  start();
  const auto result = client_.stream(
      url_, {.target = "/slow"}, {}, [](const Response&) { return true; },
      [](std::string_view) { return false; });
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_TRUE(eventually([&] { return gone_ == 1 && ended_ == 1; }));
}

TEST_F(HttpTest, CancelEndsARequestOfAnotherThread) {
  start();
  std::thread canceller([&] {
    std::this_thread::sleep_for(100ms);
    client_.cancel();
  });
  const auto result = client_.stream(
      url_, {.target = "/slow"}, {}, [](const Response&) { return true; },
      [](std::string_view) { return true; });
  canceller.join();
  EXPECT_EQ(result.error().code, Code::kCancelled);
}

TEST_F(HttpTest, OneRequestIsCancelledAndTheClientGoesOn) {
  start();
  Cancellation cancellation;
  std::thread canceller([&] {
    std::this_thread::sleep_for(50ms);
    cancellation.cancel();
  });
  const auto result = client_.request(url_, {.target = "/slow"}, {.cancellation = &cancellation});
  canceller.join();
  EXPECT_EQ(result.error().code, Code::kCancelled);
  EXPECT_EQ(client_.request(url_, {.target = "/hello/x"}, {.cancellation = &cancellation}).error().code,
            Code::kCancelled);
  EXPECT_EQ(client_.request(url_, {.target = "/hello/x"}, {})->status, 200);
}

TEST_F(HttpTest, LimitsAnswerWithTheirStatus) {
  start({.limits = {.header_bytes_max = 4096, .body_bytes_max = 1000, .request_timeout_ms = 200}});
  EXPECT_EQ(client_.request(url_, {.method = "POST", .target = "/echo", .body = std::string(1001, 'x')}, {})
                ->status,
            413);
  EXPECT_TRUE(raw("GET / HTTP/1.1\r\nHost: x\r\nA: " + std::string(8000, 'a') + "\r\n\r\n")
                  .starts_with("HTTP/1.1 431"));
  EXPECT_TRUE(
      raw("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").starts_with("HTTP/1.1 408"));
}

TEST_F(HttpTest, SmugglingAttemptsAreRefused) {
  start();
  for (const char* text :
       {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
        "GET /hello/x HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "GET /hello/x HTTP/1.1\nHost: x\n\n",
        "GET /hello/x HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", "GET /hello/x HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "nonsense\r\n\r\n"}) {
    EXPECT_TRUE(raw(text).starts_with("HTTP/1.1 400")) << text;
  }
  EXPECT_TRUE(raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").starts_with("HTTP/1.1 400"));
}

// Goal: no bytes crash the server. Method: 300 seeded mutations of a request, then a good one.
TEST_F(HttpTest, MutatedRequestsNeverCrash) {
  start({.limits = {.request_timeout_ms = 50, .idle_timeout_ms = 50}});
  const std::string good =
      "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
  Prng prng(3);
  for (int round = 0; round < 300; ++round) {
    std::string text = good;
    for (std::uint64_t edits = prng.below(6) + 1; edits > 0; --edits)
      text[prng.below(text.size())] = static_cast<char>(prng.below(256));
    raw(text);
  }
  EXPECT_EQ(client_.request(url_, {.target = "/hello/x"}, {})->status, 200);
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  const std::string one = "GET /hello/1 HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string answer = raw(one + "GET /count HTTP/1.1\r\nHost: x\r\n\r\n" +
                                 "GET /hello/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto first = answer.find("hello 1"), stream = answer.find("data: 99"), last = answer.find("hello 2");
  ASSERT_NE(last, std::string::npos) << answer;
  EXPECT_LT(first, stream);
  EXPECT_LT(stream, last);
}

TEST_F(HttpTest, HeadHasNoBodyAndAChunkedBodyArrivesWhole) {
  start();
  const std::string head = raw("HEAD /hello/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(head.find("content-length: 7\r\n"), std::string::npos) << head;
  EXPECT_TRUE(head.ends_with("\r\n\r\n")) << head;
  const int fd = connected();
  const auto send = [fd](std::string_view text) {
    EXPECT_GT(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), 0);
  };
  const auto receive = [fd] {
    char buffer[4096];
    const ssize_t count = ::recv(fd, buffer, sizeof buffer, 0);
    return std::string(buffer, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  };
  send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(receive(), "HTTP/1.1 100 Continue\r\n\r\n");
  send("3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n");
  const std::string chunked = receive();
  EXPECT_TRUE(chunked.starts_with("HTTP/1.1 200 OK")) << chunked;
  EXPECT_TRUE(chunked.ends_with("abcde")) << chunked;
  ::close(fd);
}

// Goal: a refusal reaches a client that is still sending. Method: four megabytes where a thousand bytes are
// allowed.
TEST_F(HttpTest, ARefusalReachesAClientThatIsStillSending) {
  start({.limits = {.body_bytes_max = 1000}});
  EXPECT_TRUE(
      raw("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + std::string(4'000'000, 'x'))
          .starts_with("HTTP/1.1 413"));
}

// Goal: a slow client slows its handler down and loses nothing. Method: 16 MiB through a queue of 1 MiB, read
// late.
TEST_F(HttpTest, ASlowClientHoldsItsHandlerBackAndLosesNothing) {
  start({.limits = {.write_queue_bytes_max = 1u << 20}});
  std::size_t received = 0;
  const auto result = client_.stream(
      url_, {.target = "/large"}, {}, [](const Response&) { return true; },
      [&](std::string_view piece) {
        if (received == 0) {
          std::this_thread::sleep_for(300ms);
          EXPECT_LT(written_, 256);
        }
        received += piece.size();
        return true;
      });
  EXPECT_TRUE(result) << result.error().message;
  EXPECT_EQ(received, 256u * (64u << 10));
}

TEST_F(HttpTest, OffTheHandlersThreadsASlowClientIsCutOff) {
  start({.limits = {.write_queue_bytes_max = 1u << 20}});
  const int fd = connected();
  const std::string text = "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_GT(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), 0);
  ASSERT_TRUE(eventually([&] {
    const std::scoped_lock lock(kept_mutex_);
    return kept_.size() == 1;
  }));
  const std::string piece(64u << 10, 'x');
  EXPECT_TRUE(eventually([&] {
    for (int i = 0; i < 64; ++i) {
      if (!kept_[0]->write(piece)) return true;
    }
    return false;
  }));
  EXPECT_TRUE(kept_[0]->client_gone());
  ::close(fd);
}

TEST_F(HttpTest, OpenStreamsHoldNoThread) {
  start({.threads = 2});
  std::vector<int> sockets;
  const std::string text = "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n";
  for (int i = 0; i < 200; ++i) {
    sockets.push_back(connected());
    ASSERT_GT(::send(sockets.back(), text.data(), text.size(), MSG_NOSIGNAL), 0);
  }
  EXPECT_TRUE(eventually([&] {
    const std::scoped_lock lock(kept_mutex_);
    return kept_.size() == 200;
  }));
  EXPECT_EQ(client_.request(url_, {.target = "/hello/x"}, {})->status, 200);
  for (const auto& writer : kept_) writer->finish();
  for (const int fd : sockets) ::close(fd);
}

TEST_F(HttpTest, AStreamForHttp10EndsAlsoWhenItsEndComesAlone) {
  start();
  std::thread handler([&] {
    EXPECT_TRUE(eventually([&] {
      const std::scoped_lock lock(kept_mutex_);
      return !kept_.empty();
    }));
    kept_[0]->write("all of it");
    std::this_thread::sleep_for(100ms);
    kept_[0]->finish();
  });
  const int fd = connected();
  const std::string text = "GET /kept HTTP/1.0\r\nHost: x\r\n\r\n";
  ASSERT_GT(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), 0);
  std::string answer;
  char buffer[4096];
  ssize_t count;
  while ((count = ::recv(fd, buffer, sizeof buffer, 0)) > 0) answer.append(buffer, static_cast<std::size_t>(count));
  EXPECT_EQ(count, 0) << "the connection did not end";
  EXPECT_TRUE(answer.ends_with("all of it"));
  ::close(fd);
  handler.join();
}

TEST_F(HttpTest, StoppingTellsHandlersAndAnAnswerMayOutliveItsServer) {
  start();
  Client other;
  std::thread stuck([&] { (void)other.request(url_, {.target = "/slow"}, {}); });
  std::thread kept([&] { (void)other.request(url_, {.target = "/kept"}, {}); });
  ASSERT_TRUE(eventually([&] {
    const std::scoped_lock lock(kept_mutex_);
    return kept_.size() == 1;
  }));
  std::this_thread::sleep_for(50ms);
  server_.reset();
  EXPECT_EQ(ended_, 1);
  stuck.join();
  kept.join();
  EXPECT_TRUE(kept_[0]->client_gone());
  EXPECT_FALSE(kept_[0]->write("nobody reads this"));
  bool told = false;
  kept_[0]->on_client_gone([&] { told = true; });
  EXPECT_TRUE(told);
  kept_.clear();
}

TEST_F(HttpTest, ManyClientsAtOnce) {
  start({.threads = 4});
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i)
        good += client_.request(url_, {.target = "/hello/x"}, {}).value_or(Response{}).body == "hello x";
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 800);
}

TEST(HttpServerTest, AWiderAddressNeedsTls) {
  const auto server = Server::start({.host = "0.0.0.0"}, Router().handler());
  ASSERT_FALSE(server);
  EXPECT_NE(server.error().message.find("TLS"), std::string::npos);
}

TEST(HttpServerTest, ForeignHostsAndOriginsAreRefused) {
  const auto request = [](std::string host, std::string origin) {
    Request out{.headers = {{"Host", std::move(host)}}};
    if (!origin.empty()) out.headers.add("Origin", std::move(origin));
    return out;
  };
  EXPECT_FALSE(refuse_foreign(request("localhost:8080", ""), {}));
  EXPECT_FALSE(refuse_foreign(request("127.0.0.1:8080", "http://127.0.0.1:8080"), {}));
  EXPECT_FALSE(refuse_foreign(request("[::1]:8080", ""), {}));
  EXPECT_TRUE(refuse_foreign(request("evil.example", ""), {}));
  EXPECT_TRUE(refuse_foreign(request("127.0.0.1.evil.example", ""), {}));
  EXPECT_TRUE(refuse_foreign(request("localhost:8080", "https://evil.example"), {}));
  EXPECT_FALSE(refuse_foreign(request("localhost", "https://evil.example"), {.check_origin = false}));
  EXPECT_FALSE(refuse_foreign(request("capstan.example", ""), {.hosts = {"capstan.example"}}));
}

TEST(HttpMessageTest, UrlsAreReadOrRefused) {
  EXPECT_EQ(parse_url("https://a.example/x")->port, 443);
  EXPECT_EQ(parse_url("http://[::1]:90")->host, "::1");
  EXPECT_FALSE(parse_url("localhost:80"));
  EXPECT_FALSE(parse_url("http://:80"));
  EXPECT_FALSE(parse_url("http://a:99999"));
}

}  // namespace
}  // namespace capstan::http

// Goal: bodies that may be large arrive whole over both versions, in bounded memory and bounded room on disk, and nothing of
// them is left; answers are sent from files. Method: real sockets, the loop's client.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <future>
#include <thread>

#include "base/file.h"
#include "base/sha256.h"
#include "base/text.h"
#include "http/async_client.h"
#include "http/loopback_testing.h"
#include "http/server.h"

namespace capstan::http {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMiB = 1u << 20;

std::string pattern(std::size_t bytes) {
  std::string text(bytes, ' ');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

std::int64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return parse_int(trim(line.substr(8, line.find("kB") - 8))).value_or(0) * 1024;
  }
  return 0;
}

// Whether HTTP/2 is spoken.
class LargeBodyTest : public testing::TestWithParam<bool> {
 protected:
  void start(ServerLimits limits) {
    const auto tell = [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, fmt::format("{} {} {}", request.content().size(), sha256_hex(request.content()),
                                                      request.body_file ? "file" : "memory")));
    };
    router_.add("POST", "/files", tell);
    router_.add("POST", "/below/{rest...}", tell);
    router_.add("POST", "/other", tell);
    router_.add("GET", "/kept", [this](const Request&, const ResponseWriterPtr& writer) {
      auto file = BodyFile::open(directory_ / "kept");
      ASSERT_TRUE(file) << file.error().message;
      writer->respond({.status = 200, .body_file = *std::move(file)});
    });
    router_.allow_large_bodies("POST", "/files", 48 * kMiB);
    router_.allow_large_bodies("POST", "/below/", 2 * kMiB);
    ASSERT_TRUE(make_directories(directory_));
    auto server = Server::start({.limits = limits, .body_directory = directory_}, router_);
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    thread_ = std::thread([this] { loop_.run(); });
    run([this] { client_ = std::make_unique<AsyncClient>(loop_); });
  }
  void TearDown() override {
    if (thread_.joinable()) {
      run([this] { client_.reset(); });
      loop_.stop();
      thread_.join();
      loop_.close();
    }
    server_.reset();
    std::filesystem::remove_all(directory_);
  }
  void run(std::function<void()> task) {
    std::promise<void> done;
    loop_.post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }

  struct Sink final : CallSink {
    int status = 0;
    std::string length, body;
    std::promise<void> ended;
    void on_head(Response& head) override {
      status = head.status;
      length = head.headers.get("content-length");
    }
    void on_piece(std::string_view piece) override { body += piece; }
    void on_end(Result<void>) override { ended.set_value(); }
  };
  std::string ask(std::string method, std::string target, std::string_view body = {}) {
    Sink sink;
    std::unique_ptr<AsyncCall> call;
    const std::string url = fmt::format("http://127.0.0.1:{}", server_->port());
    run([&] { call = client_->start(url, {.method = method, .target = target}, body, {.http2 = GetParam()}, sink); });
    sink.ended.get_future().wait();
    run([&] { call.reset(); });
    return fmt::format("{} {}{}", sink.status, method == "HEAD" ? sink.length : "", sink.body);
  }
  static std::string told(std::string_view body, std::string_view where) {
    return fmt::format("200 {} {} {}", body.size(), sha256_hex(body), where);
  }

  const std::filesystem::path directory_ = std::filesystem::temp_directory_path() / ("large-body-" + random_hex(6));
  Router router_;
  std::unique_ptr<Server> server_;
  EventLoop loop_;
  std::thread thread_;
  std::unique_ptr<AsyncClient> client_;
};

TEST_P(LargeBodyTest, ArriveWholeAndNoLongerThanAllowed) {
  start({.body_bytes_max = kMiB});
  const std::string body = pattern(48 * kMiB);
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, kBodyHeldBytes, kBodyHeldBytes + 1, 3 * kMiB + 7, 48 * kMiB}) {
    const std::string_view part = std::string_view(body).substr(0, size);
    EXPECT_EQ(ask("POST", "/files?x=1", part), told(part, size > kBodyHeldBytes ? "file" : "memory")) << size;
  }
  EXPECT_EQ(ask("POST", "/below/a/b", body.substr(0, 2 * kMiB)), told(body.substr(0, 2 * kMiB), "file"));
  EXPECT_TRUE(ask("POST", "/below/a/b", body.substr(0, 2 * kMiB + 1)).starts_with("413 "));
  EXPECT_EQ(ask("POST", "/other", body.substr(0, kMiB)), told(body.substr(0, kMiB), "memory"));
  EXPECT_TRUE(ask("POST", "/other", body.substr(0, kMiB + 1)).starts_with("413 "));
  EXPECT_TRUE(ask("POST", "/files", body + "x").starts_with("413 "));
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_P(LargeBodyTest, ManyAtOnceNeedLittleMemory) {
  start({});
  const std::string body = pattern(48 * kMiB);
  const std::string expected = told(body, "file");
  const std::int64_t before = anonymous_bytes();
  std::atomic<std::int64_t> most{0};
  std::atomic<bool> over{false};
  std::thread watcher([&] {
    while (!over) {
      most = std::max<std::int64_t>(most, anonymous_bytes() - before);
      std::this_thread::sleep_for(2ms);
    }
  });
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 4; ++i) answers.push_back(std::async(std::launch::async, [&] { return ask("POST", "/files", body); }));
  for (auto& answer : answers) EXPECT_EQ(answer.get(), expected);
  over = true;
  watcher.join();
  EXPECT_LT(most, std::int64_t{48 * kMiB});
}

TEST_P(LargeBodyTest, TogetherHaveBoundedRoomAndGiveItBack) {
  start({.body_files_bytes_max = 8 * kMiB});
  const std::string body = pattern(9 * kMiB);
  EXPECT_TRUE(ask("POST", "/files", body).starts_with("503 "));
  const std::string_view fits = std::string_view(body).substr(0, 7 * kMiB);
  // An answer may come a moment before its request's room is free.
  const auto ask_for_room = [&] {
    std::string answer;
    for (int tries = 0; tries < 1'000; ++tries, std::this_thread::sleep_for(2ms)) {
      answer = ask("POST", "/files", fits);
      if (!answer.starts_with("503 ")) break;
    }
    return answer;
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask_for_room(), told(fits, "file"));
  // Clients that leave half-way.
  for (int i = 0; i < 8; ++i) {
    Sink sink;
    std::unique_ptr<AsyncCall> call;
    run([&] {
      call = client_->start(fmt::format("http://127.0.0.1:{}", server_->port()), {.method = "POST", .target = "/files"}, fits,
                            {.http2 = GetParam()}, sink);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(i));
    run([&] { call.reset(); });
  }
  EXPECT_EQ(ask_for_room(), told(fits, "file"));
}

TEST_P(LargeBodyTest, NoRoomOnDiskIsSaid) {
  start({});
  std::filesystem::remove_all(directory_);
  EXPECT_EQ(ask("POST", "/files", pattern(2 * kMiB)),
            fmt::format(R"(500 {{"error":{{"code":"invalid","message":"cannot keep a body in {}: No such file or directory"}}}})",
                        directory_.string()));
}

TEST_P(LargeBodyTest, AnswersAreSentFromFiles) {
  start({});
  const std::string body = pattern(5 * kMiB + 3);
  ASSERT_TRUE(write_file_atomic(directory_ / "kept", body));
  EXPECT_EQ(ask("GET", "/kept"), "200 " + body);
  EXPECT_EQ(ask("HEAD", "/kept"), fmt::format("200 {}", body.size()));
  ASSERT_TRUE(write_file_atomic(directory_ / "kept", ""));
  EXPECT_EQ(ask("GET", "/kept"), "200 ");
}

INSTANTIATE_TEST_SUITE_P(Versions, LargeBodyTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Http2" : "Http1"; });

// What only HTTP/1.1 has: chunks, and a request right behind.
class Http1LargeBodyTest : public LargeBodyTest {};
TEST_P(Http1LargeBodyTest, ChunksAndWhatFollowsThem) {
  start({});
  const std::string body = pattern(2 * kMiB + 5);
  std::string sent = "POST /files HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (std::size_t at = 0; at < body.size(); at += 7'001) {
    const std::string_view chunk = std::string_view(body).substr(at, 7'001);
    sent += fmt::format("{:x}\r\n{}\r\n", chunk.size(), chunk);
  }
  sent += "0\r\n\r\nPOST /files HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nend";
  const int fd = connect_to(server_->port(), 5);
  std::thread sender([&] {
    for (std::size_t at = 0; at < sent.size();) {
      const ssize_t count = ::send(fd, sent.data() + at, sent.size() - at, MSG_NOSIGNAL);
      if (count <= 0) break;
      at += static_cast<std::size_t>(count);
    }
  });
  std::string answer;
  char buffer[4096];
  for (ssize_t count; (count = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, static_cast<std::size_t>(count));
  sender.join();
  ::close(fd);
  EXPECT_NE(answer.find(told(body, "file").substr(4)), std::string::npos) << answer;
  EXPECT_NE(answer.find(told("end", "memory").substr(4)), std::string::npos) << answer;
}
INSTANTIATE_TEST_SUITE_P(Versions, Http1LargeBodyTest, testing::Values(false), [](const auto&) { return "Http1"; });

}  // namespace
}  // namespace capstan::http

// Goal: clients that mean harm cost bounded memory, get the right error, and harm nobody else. Method: many raw sockets
// against a server in this process, whose resident memory is read before and after; a well-behaved client meanwhile.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "http/client.h"
#include "http/loopback_testing.h"
#include "http/server.h"

namespace capstan::http {
namespace {

using namespace std::chrono_literals;

std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t pages = 0, resident = 0;
  file >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

class HostileTest : public testing::Test {
 protected:
  void start(const ServerLimits& limits) {
    Router router;
    router.add("POST", "/echo", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, std::to_string(request.body.size())));
    });
    router.add("GET", "/large", [](const Request&, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, std::string(4u << 20, 'x')));
    });
    server_ = std::move(Server::start({.threads = 4, .limits = limits}, router).value());
    url_ = fmt::format("http://127.0.0.1:{}", server_->port());
    ASSERT_TRUE(well_served());  // and what a first request allocates is there
    before_ = resident_bytes();
  }
  ~HostileTest() override {
    for (const int fd : sockets_) ::close(fd);
  }
  bool well_served() {
    const auto answer = client_.request(url_, {.method = "POST", .target = "/echo", .body = std::string(9'000, 'x')}, {});
    return answer && answer->body == "9000";
  }
  int connect(std::string_view text) {
    const int fd = connect_to(server_->port(), 5);
    send(fd, text);
    sockets_.push_back(fd);
    return fd;
  }
  static bool send(int fd, std::string_view text) {
    while (!text.empty()) {
      const ssize_t count = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  static std::string receive(int fd) {
    std::string out;
    char buffer[4096];
    for (ssize_t count; (count = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) out.append(buffer, static_cast<std::size_t>(count));
    return out;
  }
  // How much more memory the process holds than before the attack; printed, since the figures are worth reading.
  std::int64_t growth(const char* attack) {
    const std::int64_t bytes = resident_bytes() - before_;
    std::printf("%s: %zu connections, %.1f MiB more resident\n", attack, sockets_.size(),
                static_cast<double>(bytes) / (1 << 20));
    return bytes;
  }

  std::unique_ptr<Server> server_;
  std::string url_;
  Client client_;
  std::vector<int> sockets_;
  std::int64_t before_ = 0;
};

TEST_F(HostileTest, SlowHeadersAreTimedOutAndCostLittle) {
  start({.request_timeout_ms = 1'500});
  for (int i = 0; i < 400; ++i) connect("POST /echo HTTP/1.1\r\nHost: x\r\nX-A: ");
  for (int round = 0; round < 3; ++round) {
    for (const int fd : sockets_) send(fd, "a");
    EXPECT_TRUE(well_served());
  }
  EXPECT_LT(growth("slow headers"), 16 << 20);
  // A byte now and then does not help: the time runs from the header's first byte.
  for (const int fd : sockets_) EXPECT_TRUE(receive(fd).starts_with("HTTP/1.1 408"));
}

TEST_F(HostileTest, HeadersThatNeverEndStopAtTheirLimit) {
  start({.header_bytes_max = 16u << 10});
  const std::string piece(8u << 10, 'a');
  for (int i = 0; i < 200; ++i) {
    connect("GET / HTTP/1.1\r\nHost: x\r\nX-A: ");
    for (int n = 0; n < 8 && send(sockets_.back(), piece); ++n) {
    }
  }
  EXPECT_TRUE(well_served());
  EXPECT_LT(growth("endless headers"), 32 << 20);
  for (const int fd : sockets_) EXPECT_TRUE(receive(fd).starts_with("HTTP/1.1 431"));
}

TEST_F(HostileTest, BodiesThatAreAnnouncedButNotSentCostWhatWasSent) {
  start({});
  for (int i = 0; i < 300; ++i)
    connect("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n" + std::string(1'000, 'x'));
  EXPECT_TRUE(well_served());
  EXPECT_LT(growth("announced bodies"), 32 << 20);
}

TEST_F(HostileTest, AllBodiesTogetherHaveABudgetAndSmallOnesPass) {
  start({.buffered_bytes_max = 8u << 20});
  const std::string half(1u << 20, 'x');
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    const int fd = connect("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n");
    send(fd, half);
  }
  EXPECT_TRUE(well_served());
  EXPECT_LT(growth("many large bodies"), 64 << 20);
  for (int round = 0; round < 100 && refused <= 20; ++round) {
    std::this_thread::sleep_for(30ms);
    refused = 0;
    for (const int fd : sockets_) {
      char first[12] = {};
      if (::recv(fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT) == 12 &&
          std::string_view(first, 12) == "HTTP/1.1 503")
        ++refused;
    }
  }
  EXPECT_GT(refused, 20);
}

TEST_F(HostileTest, ChunkExtensionsAndEmptyFieldsAreBounded) {
  start({});
  const std::string chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const int long_one = connect(chunked + "1;a=" + std::string(1'000, 'b') + "\r\nx\r\n");
  EXPECT_TRUE(receive(long_one).starts_with("HTTP/1.1 400"));
  const int endless = connect(chunked + "1;a=");
  for (int i = 0; i < 64 && send(endless, std::string(8u << 10, 'b')); ++i) {
  }
  EXPECT_TRUE(receive(endless).starts_with("HTTP/1.1 400"));
  std::string fields;
  for (int i = 0; i < 1'000; ++i) fields += "a:b\r\n";
  const int many = connect("GET / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n");
  EXPECT_TRUE(receive(many).starts_with("HTTP/1.1 400"));
  EXPECT_TRUE(well_served());
}

TEST_F(HostileTest, PipelinesThatAreNotReadAreNotReadEither) {
  start({.idle_timeout_ms = 1'500});
  std::string many;
  for (int i = 0; i < 200; ++i) many += "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
  for (int i = 0; i < 10; ++i) connect(many);
  EXPECT_TRUE(well_served());
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(growth("unread pipelines"), 10 * (12 << 20));
}

// One field of 4,000 bytes in the dynamic table, then named ten thousand times in ten thousand bytes.
TEST_F(HostileTest, HeadersThatUnpackToAHundredTimesTheirSizeAreRefused) {
  start({});
  const auto frame = [](std::uint8_t type, std::uint8_t flags, std::string_view payload) {
    std::string out;
    for (const int shift : {16, 8, 0}) out += static_cast<char>(payload.size() >> shift);
    out += static_cast<char>(type);
    out += static_cast<char>(flags);
    return out.append(std::string("\0\0\0\x1", 4)).append(payload);
  };
  std::string block("\x82\x86\x84\x01\x01x", 6);
  block += std::string("\x40\x01" "a\x7f\xa1\x1e", 6) + std::string(4'000, 'v');  // 127 + 0x21 + 0x1e * 128
  const std::string bomb = block + std::string(10'000, '\xbe');
  std::string settings("\0\0\0\x4\0\0\0\0\0", 9);
  for (int i = 0; i < 20; ++i)
    connect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + frame(1, 0x5, bomb));
  EXPECT_TRUE(well_served());
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(growth("header bombs"), 20 << 20);
}

}  // namespace
}  // namespace capstan::http

// Goal: many streams that are written to at once, by several threads, each arrive whole and in order, whoever leaves or lags.
// Method: real sockets; every round writes a piece to all of them within one turn of the loop.
#include "http/flush_crew.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

#include "http/client.h"
#include "http/event_loop.h"
#include "http/loopback_testing.h"
#include "http/server.h"

namespace capstan::http {
namespace {

struct Counted final : Flusher {
  std::atomic<int> sent{0};
  bool begin_flush() override { return true; }
  void send() override { ++sent; }
  void end_flush() override {}
};

TEST(FlushCrewTest, EveryFlusherIsSentOnceBeforeSendReturns) {
  FlushCrew crew;
  std::vector<std::shared_ptr<Counted>> all;
  for (int i = 0; i < 100; ++i) all.push_back(std::make_shared<Counted>());
  for (int round = 1; round <= 500; ++round) {
    const std::vector<std::shared_ptr<Flusher>> some(all.begin(), all.begin() + round % 100 + 1);
    crew.send(some);
    int sum = 0;
    for (const auto& one : all) sum += one->sent.exchange(0);
    ASSERT_EQ(sum, round % 100 + 1);
  }
}

TEST(FlushCrewTest, StreamsWrittenAtOnceArriveWholeAndInOrder) {
  constexpr int kStreams = 64, kRounds = 300;
  EventLoop* loop = nullptr;
  std::vector<ResponseWriterPtr> writers;  // of the loop
  std::atomic<int> begun{0};
  Router router;
  router.add_loop_hooks([&](EventLoop& on) { loop = &on; }, [&] { writers.clear(); });
  router.add_on_loop("GET", "/stream", [&](Request, const ResponseWriterPtr& writer) {
    writer->start(200, {});
    writers.push_back(writer);
    ++begun;
  });
  auto server = Server::start({}, router);
  ASSERT_TRUE(server) << server.error().message;
  std::vector<int> sockets;
  // In HTTP/1.0 an answer's bytes are the body, and its end is the connection's.
  const std::string text = "GET /stream HTTP/1.0\r\nHost: x\r\n\r\n";
  for (int i = 0; i < kStreams; ++i) {
    sockets.push_back(connect_to((*server)->port(), 20));
    ASSERT_GT(::send(sockets.back(), text.data(), text.size(), MSG_NOSIGNAL), 0);
  }
  while (begun < kStreams) std::this_thread::yield();
  std::string wanted;
  std::atomic<int> done{0};
  for (int round = 0; round < kRounds; ++round) {
    const std::string piece = fmt::format("piece {} {};", round, std::string(static_cast<std::size_t>(round % 7) * 1'000, 'x'));
    wanted += piece;
    loop->post([&, piece] {
      for (const auto& writer : writers) writer->write(piece);
      ++done;
    });
    if (round == kRounds / 2) {
      for (int i = 0; i < kStreams; i += 4) ::close(sockets[static_cast<std::size_t>(i)]);
    }
    while (done <= round) std::this_thread::yield();
  }
  loop->post([&] {
    for (const auto& writer : writers) writer->finish();
  });
  for (int i = 0; i < kStreams; ++i) {
    if (i % 4 == 0) continue;
    const int fd = sockets[static_cast<std::size_t>(i)];
    std::string body;
    char buffer[64 << 10];
    ssize_t count;
    while ((count = ::recv(fd, buffer, sizeof buffer, 0)) > 0) body.append(buffer, static_cast<std::size_t>(count));
    EXPECT_EQ(count, 0) << "no end of stream " << i;
    EXPECT_EQ(body.substr(body.find("\r\n\r\n") + 4), wanted) << i;
    ::close(fd);
  }
}

}  // namespace
}  // namespace capstan::http

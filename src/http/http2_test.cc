// Goal: HTTP/2 on the port of HTTP/1.1: requests, streams, uploads, many at once, and peers that mean harm.
// Method: nghttp2's client side over a real socket; floods as raw frames.
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "http/client.h"
#include "http/loopback_testing.h"
#include "http/server.h"

namespace capstan::http {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// One connection of a well-behaved client.
class Peer {
 public:
  struct Answer {
    std::map<std::string, std::string> headers;
    std::string body;
    bool closed = false;
    std::uint32_t error = 0;
  };
  explicit Peer(int port) : fd_(connect_to(port, 5)) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t n,
                      const std::uint8_t* value, std::size_t v, std::uint8_t, void* data) {
          static_cast<Peer*>(data)->answers[frame->hd.stream_id].headers[{reinterpret_cast<const char*>(name), n}] =
              std::string(reinterpret_cast<const char*>(value), v);
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* bytes, std::size_t n,
                      void* data) {
          static_cast<Peer*>(data)->answers[id].body.append(reinterpret_cast<const char*>(bytes), n);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, std::int32_t id, std::uint32_t error, void* data) {
          auto& answer = static_cast<Peer*>(data)->answers[id];
          answer.closed = true;
          answer.error = error;
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* data) {
          if (frame->hd.type == NGHTTP2_GOAWAY) static_cast<Peer*>(data)->goaway = true;
          return 0;
        });
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~Peer() {
    nghttp2_session_del(session_);
    ::close(fd_);
  }

  std::int32_t send(std::string method, std::string path, std::string body = {},
                    std::vector<std::pair<std::string, std::string>> more = {}) {
    std::vector<std::pair<std::string, std::string>> lines = {
        {":method", method}, {":scheme", "http"}, {":authority", "127.0.0.1"}, {":path", path}};
    for (auto& line : more) lines.push_back(line);
    std::vector<nghttp2_nv> fields;
    for (auto& [name, value] : lines) {
      fields.push_back({reinterpret_cast<std::uint8_t*>(name.data()), reinterpret_cast<std::uint8_t*>(value.data()),
                        name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
    }
    bodies_.push_back({std::move(body), 0});
    nghttp2_data_provider provider{};
    provider.source.fd = static_cast<int>(bodies_.size() - 1);
    provider.read_callback = [](nghttp2_session*, std::int32_t, std::uint8_t* to, std::size_t count,
                                std::uint32_t* flags, nghttp2_data_source* source, void* data) -> ssize_t {
      auto& [text, at] = static_cast<Peer*>(data)->bodies_[static_cast<std::size_t>(source->fd)];
      const std::size_t part = std::min(count, text.size() - at);
      std::copy_n(text.data() + at, part, to);
      at += part;
      if (at == text.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
      return static_cast<ssize_t>(part);
    };
    const bool has_body = !bodies_.back().first.empty();
    return nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), has_body ? &provider : nullptr,
                                  nullptr);
  }
  void reset(std::int32_t id) { nghttp2_submit_rst_stream(session_, 0, id, NGHTTP2_CANCEL); }

  // Exchanges bytes until `done` or nothing comes for a while; false in the latter case.
  bool run(const std::function<bool()>& done) {
    while (!done()) {
      const std::uint8_t* bytes = nullptr;
      for (ssize_t count; (count = nghttp2_session_mem_send(session_, &bytes)) > 0;)
        if (::send(fd_, bytes, static_cast<std::size_t>(count), MSG_NOSIGNAL) < 0) return false;
      char buffer[16384];
      pollfd ready{fd_, POLLIN, 0};
      if (::poll(&ready, 1, 5000) <= 0) return false;
      const ssize_t count = ::recv(fd_, buffer, sizeof buffer, 0);
      if (count <= 0) return done();
      if (nghttp2_session_mem_recv(session_, reinterpret_cast<std::uint8_t*>(buffer), static_cast<std::size_t>(count)) < 0)
        return false;
    }
    return true;
  }
  bool finish(std::int32_t id) {
    return run([&] { return answers[id].closed; });
  }

  std::map<std::int32_t, Answer> answers;
  bool goaway = false;

 private:
  int fd_;
  nghttp2_session* session_ = nullptr;
  std::vector<std::pair<std::string, std::size_t>> bodies_;
};

class Http2Test : public testing::Test {
 protected:
  void start(ServerLimits limits = {}) {
    Router router;
    router.add("POST", "/echo", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, request.body));
    });
    router.add("GET", "/see", [](const Request& request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(
          200, fmt::format("{} {} {} {}", request.http_version, request.headers.get("host"), request.target,
                           request.headers.get("x-a"))));
    });
    router.add_on_loop("GET", "/loop", [](Request, const ResponseWriterPtr& writer) {
      writer->respond(Response::text(200, "loop"));
    });
    router.add("GET", "/count", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->on_client_gone([this] { ++gone_; });
      writer->start(200, {{"Content-Type", "text/event-stream"}, {"Connection", "close"}});
      for (int i = 0; i < 100; ++i) writer->write(sse_event(std::to_string(i)));
      writer->finish();
    });
    router.add("GET", "/endless", [this](const Request&, const ResponseWriterPtr& writer) {
      writer->on_client_gone([this] { ++gone_; });
      writer->start(200, {});
      while (writer->write("more ")) std::this_thread::sleep_for(1ms);
    });
    server_ = std::move(Server::start({.limits = limits}, router).value());
  }
  bool well_served() {
    Peer peer(server_->port());
    const auto id = peer.send("GET", "/loop");
    return peer.finish(id) && peer.answers[id].body == "loop";
  }
  // Sends raw bytes over and over until the server closes the connection; how often it could.
  int flood(std::string_view once, const std::string& frames, int times) {
    const int fd = connect_to(server_->port(), 5);
    std::string first(once);
    ::send(fd, first.data(), first.size(), MSG_NOSIGNAL);
    int sent = 0;
    while (sent < times && ::send(fd, frames.data(), frames.size(), MSG_NOSIGNAL) > 0) {
      ++sent;
      char dropped[65536];
      while (::recv(fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0) {
      }
    }
    ::close(fd);
    return sent;
  }

  std::atomic<int> gone_{0};
  std::unique_ptr<Server> server_;
};

std::string frame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream, std::string_view payload) {
  std::string out;
  for (const int shift : {16, 8, 0}) out += static_cast<char>(payload.size() >> shift);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(stream >> shift);
  return out.append(payload);
}

// HPACK from the static table: GET / over http to a literal authority "x".
constexpr std::string_view kGetHeaders{"\x82\x86\x84\x01\x01x", 6};

std::string opening() { return std::string(kPreface) + frame(4, 0, 0, {}); }

TEST_F(Http2Test, RequestsStreamsAndUploadsShareAConnectionAndThePort) {
  start();
  Peer peer(server_->port());
  const auto see = peer.send("GET", "/see?a=%2F", {}, {{"x-a", "b"}});
  const auto count = peer.send("GET", "/count");
  const std::string large(3 << 20, 'x');
  const auto echo = peer.send("POST", "/echo", large);
  const auto loop = peer.send("GET", "/loop");
  const auto missing = peer.send("GET", "/missing");
  for (const auto id : {see, count, echo, loop, missing}) ASSERT_TRUE(peer.finish(id));
  EXPECT_EQ(peer.answers[see].body, "2 127.0.0.1 /see?a=%2F b");
  EXPECT_TRUE(peer.answers[count].body.ends_with("data: 99\n\n"));
  EXPECT_FALSE(peer.answers[count].headers.contains("connection"));
  EXPECT_EQ(peer.answers[echo].body, large);
  EXPECT_EQ(peer.answers[loop].body, "loop");
  EXPECT_EQ(peer.answers[missing].headers[":status"], "404");
  EXPECT_EQ(Client().request(fmt::format("http://127.0.0.1:{}", server_->port()), {.target = "/see"}, {})->status, 200);
}

TEST_F(Http2Test, ManyStreamsAtOnce) {
  start();
  Peer peer(server_->port());
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 200; ++i) ids.push_back(peer.send("POST", "/echo", fmt::format("body {}", i)));
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(peer.finish(ids[static_cast<std::size_t>(i)]));
    EXPECT_EQ(peer.answers[ids[static_cast<std::size_t>(i)]].body, fmt::format("body {}", i));
  }
}

TEST_F(Http2Test, AStreamThatIsResetTellsItsHandlerAndLeavesTheOthers) {
  start();
  Peer peer(server_->port());
  const auto endless = peer.send("GET", "/endless");
  ASSERT_TRUE(peer.run([&] { return !peer.answers[endless].body.empty(); }));
  peer.reset(endless);
  const auto loop = peer.send("GET", "/loop");
  ASSERT_TRUE(peer.finish(loop));
  for (int i = 0; i < 500 && gone_ == 0; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(gone_, 1);
}

TEST_F(Http2Test, LimitsAnswerWithTheirStatus) {
  start({.header_bytes_max = 4096, .body_bytes_max = 1000});
  Peer peer(server_->port());
  const auto body = peer.send("POST", "/echo", std::string(1001, 'x'));
  const auto header = peer.send("GET", "/see", {}, {{"x-a", std::string(5000, 'a')}});
  const auto good = peer.send("GET", "/loop");
  for (const auto id : {body, header, good}) ASSERT_TRUE(peer.finish(id));
  EXPECT_EQ(peer.answers[body].headers[":status"], "413");
  EXPECT_EQ(peer.answers[header].headers[":status"], "431");
  EXPECT_EQ(peer.answers[good].body, "loop");
}

TEST_F(Http2Test, StoppingSendsGoawayAndLetsStreamsEnd) {
  start();
  Peer peer(server_->port());
  const auto endless = peer.send("GET", "/endless");
  ASSERT_TRUE(peer.run([&] { return !peer.answers[endless].body.empty(); }));
  std::thread stopper([&] { server_->stop(300); });
  EXPECT_TRUE(peer.run([&] { return peer.goaway; }));
  stopper.join();
  EXPECT_EQ(gone_, 1);
}

TEST_F(Http2Test, AClientThatLeavesWhileItIsAnsweredMayStillSpeak) {
  start();
  const int fd = connect_to(server_->port(), 5);
  const std::string hello = opening() + frame(1, 0x5, 1, std::string("\x82\x86\x04\x06/count\x01\x01x", 13)) +
                            frame(7, 0, 0, std::string_view("\0\0\0\0\0\0\0\0", 8));  // GOAWAY
  ASSERT_GT(::send(fd, hello.data(), hello.size(), MSG_NOSIGNAL), 0);
  pollfd ready{fd, POLLRDHUP, 0};
  ASSERT_EQ(::poll(&ready, 1, 5000), 1);  // the server has said all
  const std::string window = frame(8, 0, 0, std::string_view("\0\0\x40\0", 4));
  for (int i = 0; i < 3; ++i) {
    EXPECT_GT(::send(fd, window.data(), window.size(), MSG_NOSIGNAL), 0);
    std::this_thread::sleep_for(10ms);
  }
  std::string all;
  char buffer[4096];
  ssize_t count = 0;
  while ((count = ::recv(fd, buffer, sizeof buffer, 0)) > 0) all.append(buffer, static_cast<std::size_t>(count));
  EXPECT_EQ(count, 0) << "not reset";
  EXPECT_NE(all.find("data: 99\n\n"), std::string::npos);
  ::close(fd);
}

// Each of these costs the server work and brings no request; all must end in a closed connection.
TEST_F(Http2Test, FloodsAreCutOffAndOthersAreServed) {
  start();
  constexpr int kFar = 200'000;
  std::uint32_t stream = 1;
  std::string resets;
  for (int i = 0; i < 50; ++i, stream += 2)
    resets += frame(1, 0x5, stream, kGetHeaders) + frame(3, 0, stream, std::string_view("\0\0\0\x8", 4));
  EXPECT_LT(flood(opening(), frame(4, 0, 0, {}), kFar), kFar) << "SETTINGS";
  EXPECT_LT(flood(opening(), frame(6, 0, 0, "12345678"), kFar), kFar) << "PING";
  EXPECT_LT(flood(opening() + frame(1, 0x1, 1, kGetHeaders), frame(9, 0, 1, std::string(1000, '\x82')), kFar), kFar)
      << "CONTINUATION";
  EXPECT_LT(flood(opening() + frame(1, 0x4, 1, kGetHeaders), frame(0, 0, 1, {}), kFar), kFar) << "empty DATA";
  EXPECT_LT(flood(opening() + resets, resets, kFar), kFar) << "resets, and streams used twice";
  EXPECT_LT(flood(opening(), frame(2, 0, 1, std::string_view("\0\0\0\0\x10", 5)), kFar), kFar) << "PRIORITY";
  EXPECT_TRUE(well_served());
}

TEST_F(Http2Test, RapidResetsAreCutOff) {
  start();
  const int fd = connect_to(server_->port(), 5);
  const std::string hello = opening();
  ::send(fd, hello.data(), hello.size(), MSG_NOSIGNAL);
  bool open = true;
  std::uint32_t stream = 1;
  for (; open && stream < 200'000; stream += 2) {
    const std::string pair =
        frame(1, 0x5, stream, kGetHeaders) + frame(3, 0, stream, std::string_view("\0\0\0\x8", 4));
    open = ::send(fd, pair.data(), pair.size(), MSG_NOSIGNAL) > 0;
    char dropped[65536];
    while (::recv(fd, dropped, sizeof dropped, MSG_DONTWAIT) > 0) {
    }
  }
  ::close(fd);
  EXPECT_FALSE(open) << stream;
  EXPECT_TRUE(well_served());
}

TEST_F(Http2Test, AClientThatNeverOpensItsWindowIsCutOff) {
  start({.write_queue_bytes_max = 1u << 20, .idle_timeout_ms = 200});
  const int fd = connect_to(server_->port(), 5);
  // INITIAL_WINDOW_SIZE 0
  const std::string hello = std::string(kPreface) + frame(4, 0, 0, std::string_view("\0\x4\0\0\0\0", 6)) +
                            frame(1, 0x5, 1, std::string("\x82\x86\x04\x08/endless\x01\x01x", 15));
  ASSERT_GT(::send(fd, hello.data(), hello.size(), MSG_NOSIGNAL), 0);
  for (int i = 0; i < 1000 && gone_ == 0; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(gone_, 1);
  ::close(fd);
  EXPECT_TRUE(well_served());
}

}  // namespace
}  // namespace capstan::http

// One connection of a program inside to the proxy, and the one outside that serves it. Of egress.h alone.
//
// Threads: the loop's.  It lives in its Egress until close(), which each way of ending comes down to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agents/egress/address.h"
#include "agents/egress/egress.h"
#include "agents/egress/proxy_request.h"

namespace capstan::agents {

class ProxyConnection final : public std::enable_shared_from_this<ProxyConnection> {
 public:
  ProxyConnection(Egress& egress, sandbox::Fd client);

  void begin();
  // Answers with a text, and ends when it has been read.
  void refuse(int status, std::string_view text);
  void close();

 private:
  // One of the two sockets, with what waits to be written to it.
  struct Side final : http::EventLoop::Watcher {
    explicit Side(ProxyConnection& c) : connection(c) {}
    void on_ready(std::uint32_t events) override;
    bool wants_more() const { return waiting.size() < kBufferBytes; }
    ProxyConnection& connection;
    sandbox::Fd fd;
    std::string waiting;
    std::uint32_t watched = 0;  // the events
    bool read_over = false, write_over = false;
  };
  enum class State { kHead, kAsking, kConnecting, kThrough, kRefused };
  static constexpr std::size_t kBufferBytes = 32 << 10;

  void on_side(Side& side, std::uint32_t events);
  void take_head();
  void ask();
  void choose(const std::vector<Address>& found);
  void connect_next();
  void on_connected();
  void write_refusal();
  // One piece from one side to the other; false: the connection is over.
  bool move(Side& from, Side& to);
  bool write(Side& side);
  void watch(Side& side, std::uint32_t events);
  void watch_both();
  void touch(std::int64_t within_ms) { timer_.arm(within_ms); }

  Egress& egress_;
  Side inner_{*this}, outer_{*this};
  State state_ = State::kHead;
  std::string head_;  // read so far; what follows the head belongs to the host
  ProxyRequest request_;
  std::vector<Address> addresses_;  // to try, the next one last
  http::EventLoop::Timer timer_;
};

}  // namespace capstan::agents

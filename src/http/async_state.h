// What the client of an event loop consists of: servers it knows, calls under way, connections kept. Private to http/.
//
// Threads: of the loop.  Ownership: a call owns its HTTP/1.1 connection while it lasts, the state owns it between calls;
// connections of HTTP/2 are shared by the state and their calls.
#pragma once

#include <sys/socket.h>

#include <boost/asio/thread_pool.hpp>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/async_client.h"
#include "http/tls.h"

namespace capstan::http {

class Http1Link;
class Http2Link;

struct Peer {
  Url url;
  std::string authority;  // for Host
  sockaddr_storage address{};
  socklen_t address_bytes = 0;  // 0: must be looked up
};
using PeerPtr = std::shared_ptr<const Peer>;

// A connection under way to `peer`; -1, and why.
int begin_connect(const Peer& peer, std::string& why);
// What became of it once it is writable.
int connect_error(int fd);

struct AsyncClient::State : std::enable_shared_from_this<AsyncClient::State> {
  explicit State(EventLoop& l);
  ~State();

  EventLoop& loop;
  std::map<std::string, PeerPtr, std::less<>> peers;  // by URL; shared with links
  std::map<const Peer*, std::list<std::unique_ptr<Http1Link>>> kept;
  std::size_t kept_count = 0;
  std::map<const Peer*, std::vector<std::shared_ptr<Http2Link>>> multiplexed;
  std::vector<std::unique_ptr<Http1Link>> dead;  // destroyed at the end of the event
  SslContextPtr tls;
  std::optional<boost::asio::thread_pool> resolver;
  std::vector<char> scratch;
  EventLoop::Timer sweeper;
  bool closed = false;

  Result<PeerPtr> find_peer(const std::string& url);
  std::unique_ptr<Http1Link> take(const Peer& peer);
  void keep(std::unique_ptr<Http1Link> link);
  void drop_kept(Http1Link& link);
  void bury(std::unique_ptr<Http1Link> link);
  // One with room for another call; nullptr if there is none.
  std::shared_ptr<Http2Link> take_multiplexed(const Peer& peer) const;
  void add_multiplexed(std::shared_ptr<Http2Link> link);
  void drop_multiplexed(const Http2Link& link);
  void sweep();
};

class Call final : public AsyncCall {
 public:
  Call(AsyncClient::State& state, std::string_view body, const CallOptions& options, CallSink& sink);
  ~Call() override;
  void pause() override;
  void resume() override;

  void start(PeerPtr peer, const Request& head);
  // It never began, for this reason; told at the next turn.
  void later_end(Error error);

  // Of its connection:
  const std::string& head_bytes() const { return head_bytes_; }  // of HTTP/1.1
  const Request& request() const { return request_; }            // of HTTP/2
  bool head_request() const { return head_request_; }
  bool paused() const { return paused_; }
  bool head_seen() const { return head_seen_; }
  const std::shared_ptr<bool>& alive() const { return alive_; }
  void touch() { timer_.arm(connected_ ? options_.silence_timeout_ms : options_.connect_timeout_ms); }
  void on_connected() {
    connected_ = true;
    touch();
  }
  void head(Response& response) {
    head_seen_ = true;
    sink_.on_head(response);
  }
  void piece(std::string_view bytes) { sink_.on_piece(bytes); }
  void end(Result<void> result);
  // Begins again on another connection; ends with `why` if it has done so too often.
  void retry(Error why);
  std::unique_ptr<Http1Link> take_link();

  const std::string_view body;

 private:
  static constexpr int kRetriesMax = 3;
  void connect();
  void multiplex();
  void look_up_and_connect();
  void leave();
  void timed_out();

  AsyncClient::State& state_;
  CallOptions options_;
  CallSink& sink_;
  PeerPtr peer_;
  Request request_;
  std::string head_bytes_;
  bool head_request_ = false;
  bool multiplexes_ = false;
  bool connected_ = false;
  bool head_seen_ = false;
  bool paused_ = false;
  std::unique_ptr<Http1Link> link_;
  std::shared_ptr<Http2Link> shared_link_;
  std::int32_t stream_ = 0;  // on the shared link
  int retries_left_ = kRetriesMax;
  EventLoop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // shared with callbacks on their way
};

}  // namespace capstan::http

// A client's connection that carries one HTTP/1.1 call at a time. Private to http/.
//
// Threads: of the loop.  Ownership: of the call it carries, else of the client's state.
#pragma once

#include <memory>
#include <string>

#include "http/async_state.h"
#include "http/http1_reader.h"
#include "http/transport.h"

namespace capstan::http {

class Http1Link final : public EventLoop::Watcher {
 public:
  Http1Link(AsyncClient::State& state, PeerPtr peer) : state_(state), peer_(std::move(peer)) {}
  ~Http1Link() { close(); }
  bool open(std::string& why);
  void begin(Call& call);
  void release() { call_ = nullptr; }  // the call is given up
  void on_ready(std::uint32_t events) override;
  void pause(bool paused);
  void close();
  const Peer& peer() const { return *peer_; }
  std::int64_t kept_since_ms = 0;

 private:
  void set_interest(std::uint32_t wanted);
  void connected();
  void shake_hands();
  void send();
  void receive();
  void hand_out(std::string_view bytes);
  void done(bool reusable);
  void fail_call(Error error);
  Error broken(std::string_view what) const;

  AsyncClient::State& state_;
  PeerPtr peer_;
  std::unique_ptr<Transport> transport_;
  ResponseReader reader_;
  std::string pending_;  // an incomplete header
  Call* call_ = nullptr;
  std::string head_;  // of the request
  std::size_t sent_ = 0;
  std::uint32_t interest_ = 0;
  enum class Step { kConnecting, kHandshake, kSending, kReceiving, kKept } step_ = Step::kConnecting;
  bool used_ = false, paused_ = false;
  bool streams_ = false;  // the answer under way comes in pieces
};

}  // namespace capstan::http

// A client's connection that carries many calls at once as streams of HTTP/2, with prior knowledge and without TLS.
// Private to http/.
//
// Threads: of the loop.  Ownership: shared by the client's state and the calls that it carries.  Bounds: as many streams as
// the server allows, kStreamsMax at most; a paused call holds at most its stream's window.
// Failure: a lost connection ends all its calls; those that the server says it did not begin, or that went out on a
// connection that was dead already, begin again on a fresh one.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "http/async_state.h"
#include "http/output_queue.h"
#include "http/transport.h"

namespace capstan::http {

class Http2Link final : public EventLoop::Watcher,
                        public Flusher,
                        public std::enable_shared_from_this<Http2Link> {
 public:
  static constexpr std::size_t kStreamsMax = 1'024;

  Http2Link(AsyncClient::State& state, PeerPtr peer);
  ~Http2Link();
  bool open(std::string& why);
  // Carries the call on a stream, whose number it returns; sent at the end of this event.
  std::int32_t begin(Call& call);
  void release(std::int32_t id);  // the call is given up
  void pause(std::int32_t id, bool paused);
  void on_ready(std::uint32_t events) override;
  bool begin_flush() override;
  void send() override {}
  void end_flush() override {}
  // Without a word to its calls; there is none, or they are being destroyed.
  void close();

  const Peer& peer() const { return *peer_; }
  bool connected() const { return connected_; }
  bool has_room() const;
  std::int64_t idle_for_ms() const { return streams_.empty() ? state_->loop.now_ms() - idle_since_ms_ : 0; }

 private:
  struct Stream {
    Call* call = nullptr;
    Response head;
    std::size_t head_bytes = 0;
    std::size_t body_sent = 0;
    std::size_t received_before = 0;  // of the connection, when it began
    bool whole = false;               // its answer came to its end
    std::string held;                 // what came while it is paused
  };
  static Http2Link& self(void* data) { return *static_cast<Http2Link*>(data); }
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_bytes,
                       const std::uint8_t* value, std::size_t value_bytes, std::uint8_t flags, void* data);
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* data);
  static int on_data(nghttp2_session*, std::uint8_t flags, std::int32_t id, const std::uint8_t* bytes, std::size_t count,
                     void* data);
  static int on_stream_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* data);
  static ssize_t read_body(nghttp2_session*, std::int32_t id, std::uint8_t* to, std::size_t count, std::uint32_t* flags,
                           nghttp2_data_source* source, void* data);

  void make_session();
  Stream* find(std::int32_t id) {
    const auto found = streams_.find(id);
    return found == streams_.end() ? nullptr : &found->second;
  }
  Call* take(std::int32_t id);
  void finish(std::int32_t id, Stream& stream);
  void deliver_held(std::int32_t id);
  void receive();
  void want_flush();
  void flush();
  void set_interest(std::uint32_t wanted);
  void lost(const Error& error);
  bool may_retry(const Stream& stream) const;

  std::shared_ptr<AsyncClient::State> state_;  // which lets go of its links when the client ends
  PeerPtr peer_;
  std::unique_ptr<Transport> transport_;
  nghttp2_session* session_ = nullptr;
  std::unordered_map<std::int32_t, Stream> streams_;
  OutputQueue output_;
  std::uint32_t interest_ = 0;
  std::size_t received_ = 0;  // bytes
  std::int64_t idle_since_ms_ = 0;
  bool connected_ = false;
  bool settled_ = false;   // the server's settings came
  bool draining_ = false;  // it takes no more
  bool flush_wanted_ = false;
};

}  // namespace capstan::http

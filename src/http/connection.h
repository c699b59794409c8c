// One connection of the server: bytes in and out; which HTTP it speaks is told by its first bytes. Private to http/.
//
// Threads: of the loop. Ownership: Shared::connections and its answers.
#pragma once

#include "http/answer.h"
#include "http/output_queue.h"
#include "http/shared.h"
#include "http/transport.h"

namespace capstan::http {

class Connection final : public EventLoop::Watcher,
                         public Flusher,
                         public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Shared> shared, int fd, SslPtr ssl, std::string remote_address);
  ~Connection();
  void start();
  void close();
  bool is_open() const { return transport_.is_open(); }
  Session& session() { return *session_; }
  void drain();

  // Of the session:
  Shared& shared() { return *shared_; }
  OutputQueue& output() { return output_; }
  void want_flush();
  void resume_input();  // feeds the session what it has not consumed
  // Appends to `file` on a handler's thread, and finishes it if it is the `last`; then Session::on_kept().
  void keep_body(std::shared_ptr<BodyFile> file, std::string bytes, bool last, std::int32_t stream);
  EventLoop::Timer& timer() { return timer_; }
  void shutdown_send() { transport_.shutdown_send(); }
  // Runs the handler for a complete request, or answers why there is none. Null if it was refused.
  std::shared_ptr<Answer> dispatch(Request request, std::int32_t stream);

  void on_ready(std::uint32_t events) override;
  bool begin_flush() override;
  void send() override;
  void end_flush() override;

 private:
  void read_some();
  void feed(std::string_view bytes);
  std::size_t sniff(std::string_view bytes);
  void set_interest();

  std::shared_ptr<Shared> shared_;
  Transport transport_;
  std::string remote_address_;
  std::string input_;  // not consumed yet
  OutputQueue output_;
  std::unique_ptr<Session> session_;
  EventLoop::Timer timer_;
  std::uint32_t interest_ = 0;
  bool handshaking_;
  bool first_ = true;  // no bytes yet, or a part of HTTP/2's preface
  bool flush_wanted_ = false;
  bool write_blocked_ = false;
  Transport::Status send_status_ = Transport::Status::kOk;  // of the last send()
  std::int64_t progress_ms_ = 0;  // the last write before the socket was full
  bool feeding_ = false;
};

// How a request is refused whose body could not be kept.
inline int status_of_lost_body(const Error& error) { return error.code == Code::kExhausted ? 503 : 500; }

std::unique_ptr<Session> make_http1_session(Connection& connection);
std::unique_ptr<Session> make_http2_session(Connection& connection);

}  // namespace capstan::http

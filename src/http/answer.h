// A handler's ResponseWriter: from any thread to the session that holds the request. Private to http/.
//
// On the loop's thread calls go straight to the session; from others they are posted. Outlives the connection if
// it must; then writes go nowhere.
#pragma once

#include <condition_variable>
#include <mutex>

#include "http/shared.h"

namespace capstan::http {

class Answer;

// HTTP/1.1 or HTTP/2 on one connection. Of the loop's thread. `stream` tells requests of HTTP/2 apart.
class Session {
 public:
  virtual ~Session() = default;
  // How many of the bytes are consumed; the rest comes again, with more behind it.
  virtual std::size_t on_bytes(std::string_view bytes) = 0;
  virtual void send_whole(std::int32_t stream, Response response) = 0;
  virtual void send_head(std::int32_t stream, int status, Headers headers) = 0;
  virtual void send_piece(std::int32_t stream, std::string_view piece) = 0;
  virtual void send_end(std::int32_t stream) = 0;
  virtual void abort(std::int32_t stream) = 0;
  virtual void before_flush() = 0;  // put what is ready into the connection's output
  virtual void on_flushed() = 0;    // something was written; maybe all
  virtual void on_timer() = 0;
  virtual void on_kept(std::int32_t stream, const Result<void>& kept) = 0;  // what Connection::keep_body() was given
  virtual void drain() = 0;      // no further requests
  virtual void on_closed() = 0;  // tell the handlers
};

class Answer final : public ResponseWriter, public std::enable_shared_from_this<Answer> {
 public:
  Answer(std::shared_ptr<Shared> shared, std::shared_ptr<Connection> connection, std::int32_t stream);
  ~Answer() override;
  void respond(Response response) override;
  void start(int status, Headers headers) override;
  bool write(std::string_view piece) override;
  void finish() override;
  bool client_gone() const override { return gone_; }
  void on_client_gone(std::function<void()> callback) override;
  std::size_t unsent_bytes() const override { return posted_bytes_ + unsent_bytes_; }
  void when_sent(std::function<void()> callback) override;

  // Of the session:
  void mark_gone();
  void set_unsent(std::size_t bytes);  // in the session's hands
  void over();                         // its last byte is written, or the connection is closed

 private:
  template <class Function>
  void run(Function function);  // on the loop, in order
  bool wait_for_room();

  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Connection> connection_;  // shared: it lives until its answer ended
  const std::int32_t stream_;
  std::atomic<bool> started_{false};
  std::atomic<bool> finished_{false};
  std::atomic<bool> gone_{false};
  std::atomic<int> posted_calls_{0};
  std::atomic<std::size_t> posted_bytes_{0};
  std::atomic<std::size_t> unsent_bytes_{0};
  std::atomic<int> waiting_for_room_{0};  // handlers
  bool over_ = false;                    // of the loop
  std::function<void()> gone_callback_;  // of the loop
  std::function<void()> sent_callback_;  // of the loop
  std::mutex room_mutex_;
  std::condition_variable room_;
};

}  // namespace capstan::http

// How: everything of a connection happens on the server's one I/O thread; handlers run on the pool and reach
// the connection through an Answer, whose methods post to that thread. One request at a time: the next is
// read after the answer's end. While a handler works, the socket is watched for the client's leaving. A
// refusal before the request was read whole is followed by a moment of reading on: closing at once would
// reset the connection, and the client might never see why.
#include "http/connection.h"

#include <sys/socket.h>

#include <condition_variable>
#include <deque>
#include <optional>
#include <string>

#include "base/log.h"

namespace capstan::http {
namespace {

namespace bhttp = beast::http;

constexpr int kLingerMs = 5'000;
constexpr std::size_t kLingerPieceBytes = 16u << 10;

template <class Stream>
class Connection;

// What a handler holds. Outlives the connection if it must; then writes go nowhere.
template <class Stream>
class Answer final : public ResponseWriter {
 public:
  Answer(std::shared_ptr<Connection<Stream>> connection, bool head, bool http10)
      : connection_(std::move(connection)),
        executor_(connection_->executor()),
        shared_(connection_->shared()),
        head_(head),
        http10_(http10) {
    ++shared_->answers_under_way;
  }
  ~Answer() override {
    if (!started_)
      respond(Response::json(
          500, Json::object({{"error", Json::object({{"code", "internal"},
                                                     {"message", "the request was not answered"}})}})));
    if (!finished_) finish();
  }

  void respond(Response response) override {
    if (started_.exchange(true)) return;
    const bool bodiless = response.status == 204 || response.status == 304;
    if (!bodiless) response.headers.set("content-length", std::to_string(response.body.size()));
    std::string bytes = head_bytes(response.status, response.headers);
    if (!head_ && !bodiless) bytes += response.body;
    send(std::move(bytes));
    finish();
  }

  void start(int status, Headers headers) override {
    if (started_.exchange(true)) return;
    chunked_ = !http10_;
    if (chunked_) headers.set("transfer-encoding", "chunked");
    if (!chunked_) close_after_ = true;
    send(head_bytes(status, headers));
  }

  bool write(std::string_view piece) override {
    if (gone_ || finished_ || piece.empty()) return !gone_;
    if (queued_bytes_ > shared_->limits.write_queue_bytes_max && !wait_for_room()) {
      abort();
      return false;
    }
    if (head_) return true;
    send(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : std::string(piece));
    return !gone_;
  }

  void finish() override {
    if (finished_.exchange(true)) return;
    if (chunked_ && !head_ && !gone_) send("0\r\n\r\n");
    --shared_->answers_under_way;
    post([connection = connection_, close = close_after_.load()] { connection->answer_ended(close); });
  }

  bool client_gone() const override { return gone_; }

  void on_client_gone(std::function<void()> callback) override {
    if (shared_->stopped) return callback();
    post([connection = connection_, callback = std::move(callback)]() mutable {
      connection->set_gone_callback(std::move(callback));
    });
  }

  // Of the connection, on the I/O thread:
  void mark_gone() {
    const std::scoped_lock lock(room_mutex_);
    gone_ = true;
    room_.notify_all();
  }
  void written(std::size_t bytes) {
    const std::scoped_lock lock(room_mutex_);
    queued_bytes_ -= bytes;
    room_.notify_all();
  }

 private:
  std::string head_bytes(int status, const Headers& headers) {
    std::string out = fmt::format("HTTP/1.1 {} {}\r\n", status, reason_phrase(status));
    for (const auto& [name, value] : headers.all()) {
      // A line break in a value would let it forge headers.
      if (value.find_first_of("\r\n") == std::string::npos) out += fmt::format("{}: {}\r\n", name, value);
    }
    if (close_after_ || !connection_->keep_alive()) out += "connection: close\r\n";
    return out += "\r\n";
  }
  void send(std::string bytes) {
    queued_bytes_ += bytes.size();
    post([connection = connection_, bytes = std::move(bytes)]() mutable {
      connection->enqueue(std::move(bytes));
    });
  }
  void abort() {
    gone_ = true;
    post([connection = connection_] { connection->close(); });
  }
  template <class Function>
  void post(Function function) {
    if (!shared_->stopped) asio::post(executor_, std::move(function));
  }
  // Back-pressure: a handler's thread waits while the client reads; false on any other thread, and once the
  // client is gone. It ends in any case, since a write that makes no progress closes the connection.
  bool wait_for_room() {
    if (!shared_->pool.get_executor().running_in_this_thread()) return false;
    std::unique_lock lock(room_mutex_);
    room_.wait(lock, [this] { return gone_ || queued_bytes_ <= shared_->limits.write_queue_bytes_max / 2; });
    return !gone_;
  }

  std::shared_ptr<Connection<Stream>> connection_;  // shared: the connection lives until its answer ended
  asio::any_io_executor executor_;
  std::shared_ptr<Shared> shared_;
  const bool head_;
  const bool http10_;
  bool chunked_ = false;
  std::atomic<bool> started_{false};
  std::atomic<bool> finished_{false};
  std::atomic<bool> gone_{false};
  std::atomic<bool> close_after_{false};
  std::atomic<std::size_t> queued_bytes_{0};
  std::mutex room_mutex_;
  std::condition_variable room_;
};

template <class Stream>
class Connection final : public std::enable_shared_from_this<Connection<Stream>> {
 public:
  Connection(std::shared_ptr<Shared> shared, Stream stream)
      : shared_(std::move(shared)), stream_(std::move(stream)), timer_(stream_.get_executor()) {
    ++shared_->connections;
    beast::error_code ignored;
    const auto endpoint = socket().remote_endpoint(ignored);
    if (!ignored) remote_ = endpoint.address().to_string();
    socket().set_option(tcp::no_delay(true), ignored);
  }
  ~Connection() {
    shared_->remove(this);
    --shared_->connections;
  }

  asio::any_io_executor executor() { return stream_.get_executor(); }
  std::shared_ptr<Shared> shared() const { return shared_; }
  bool keep_alive() const { return keep_alive_; }

  void run() {
    shared_->add(this, [weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->close();
    });
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      arm(shared_->limits.request_timeout_ms);
      stream_.async_handshake(asio::ssl::stream_base::server,
                              [self = this->shared_from_this()](beast::error_code error) {
                                if (error) return self->close();
                                self->read_request();
                              });
    } else {
      read_request();
    }
  }

  void enqueue(std::string bytes) {
    if (closed_) {
      if (const auto answer = answer_.lock()) answer->mark_gone();
      return;
    }
    queue_.push_back(std::move(bytes));
    if (!writing_) write_next();
  }

  void answer_ended(bool close_after) {
    ended_ = true;
    close_after_ = close_after_ || close_after || !keep_alive_;
    if (!writing_ && queue_.empty()) next();
  }

  void set_gone_callback(std::function<void()> callback) {
    if (closed_ && !ended_) return callback();
    gone_callback_ = std::move(callback);
  }

  void close() {
    if (std::exchange(closed_, true)) return;
    timer_.cancel();
    beast::error_code ignored;
    socket().shutdown(tcp::socket::shutdown_both, ignored);
    socket().close(ignored);
    queue_.clear();
    if (const auto answer = answer_.lock(); answer && !ended_) answer->mark_gone();
    if (auto callback = std::exchange(gone_callback_, nullptr); callback && !ended_) callback();
  }

 private:
  tcp::socket& socket() {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  void arm(int timeout_ms) {
    timer_.expires_after(std::chrono::milliseconds(timeout_ms));
    timer_.async_wait([weak = this->weak_from_this()](beast::error_code error) {
      const auto self = weak.lock();
      if (!error && self) self->timed_out();
    });
  }

  // Not cancel(): a call that is already on its way sees by the expiry that it is void.
  void disarm() { timer_.expires_at(std::chrono::steady_clock::time_point::max()); }

  void timed_out() {
    if (timer_.expiry() > std::chrono::steady_clock::now())
      return;  // armed anew while this call was on its way
    if (!reading_body_) return close();
    beast::error_code ignored;
    socket().cancel(ignored);
    refuse(408, "the request did not arrive in time");
  }

  void read_request() {
    parser_.emplace();
    parser_->header_limit(static_cast<std::uint32_t>(shared_->limits.header_bytes_max));
    parser_->body_limit(shared_->limits.body_bytes_max);
    ended_ = false;
    arm(buffer_.size() > 0 ? shared_->limits.request_timeout_ms : shared_->limits.idle_timeout_ms);
    bhttp::async_read_header(
        stream_, buffer_, *parser_,
        [self = this->shared_from_this()](beast::error_code error, std::size_t) { self->on_header(error); });
  }

  void on_header(beast::error_code error) {
    if (closed_) return;
    if (error) return on_read_error(error);
    arm(shared_->limits.request_timeout_ms);
    const auto& message = parser_->get();
    if (message.count(bhttp::field::host) > 1 ||
        (message.version() == 11 && message.count(bhttp::field::host) == 0)) {
      return refuse(400, "a request names exactly one Host");
    }
    if (message.count(bhttp::field::content_length) > 0 &&
        message.count(bhttp::field::transfer_encoding) > 0) {
      return refuse(400, "a request has either Content-Length or Transfer-Encoding");
    }
    if (beast::iequals(message[bhttp::field::expect], "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      return asio::async_write(stream_, asio::buffer(kContinue),
                               [self = this->shared_from_this()](beast::error_code e, std::size_t) {
                                 if (e) return self->close();
                                 self->read_body();
                               });
    }
    read_body();
  }

  void read_body() {
    reading_body_ = true;
    bhttp::async_read(stream_, buffer_, *parser_,
                      [self = this->shared_from_this()](beast::error_code error, std::size_t) {
                        if (self->closed_ || self->refused_) return;
                        if (error) return self->on_read_error(error);
                        self->dispatch();
                      });
  }

  void on_read_error(beast::error_code error) {
    if (error == bhttp::error::header_limit)
      return refuse(431, fmt::format("the header is larger than {} bytes", shared_->limits.header_bytes_max));
    if (error == bhttp::error::body_limit)
      return refuse(413, fmt::format("the body is larger than {} bytes", shared_->limits.body_bytes_max));
    if (error.category() != bhttp::make_error_code(bhttp::error::end_of_stream).category() ||
        error == bhttp::error::end_of_stream || error == bhttp::error::partial_message) {
      return close();
    }
    const auto bytes = beast::buffers_to_string(buffer_.data());
    if (bytes.starts_with("PRI * HTTP/2")) return refuse(505, "this server speaks HTTP/1.1");
    refuse(400, fmt::format("not a valid HTTP/1.1 request: {}", error.message()));
  }

  void refuse(int status, std::string message) {
    reading_body_ = false;
    keep_alive_ = false;
    refused_ = true;
    auto answer = std::make_shared<Answer<Stream>>(this->shared_from_this(), false, false);
    answer_ = answer;
    answer->respond(Response::json(
        status,
        Json::object({{"error", Json::object({{"code", "invalid"}, {"message", std::move(message)}})}})));
  }

  void dispatch() {
    disarm();
    reading_body_ = false;
    auto message = parser_->release();
    keep_alive_ = message.keep_alive() && !shared_->stopping;
    Request request;
    request.method = std::string(message.method_string());
    request.target = std::string(message.target());
    for (const auto& field : message)
      request.headers.add(std::string(field.name_string()), std::string(field.value()));
    request.body = std::move(message.body());
    request.remote_address = remote_;
    if (const auto parsed = parse_target(request); !parsed) return refuse(400, parsed.error().message);
    auto answer = std::make_shared<Answer<Stream>>(this->shared_from_this(), request.method == "HEAD",
                                                   message.version() < 11);
    answer_ = answer;
    watch();
    asio::post(shared_->pool, [shared = shared_, request = std::move(request), answer = std::move(answer)] {
      try {
        shared->handler(request, answer);
      } catch (const std::exception& exception) {
        // A handler of ours does not throw; what a library threw becomes a 500 for this request only.
        log_error("a handler threw", "path={} what=\"{}\"", request.path, exception.what());
      }
    });
  }

  // Readable while nothing is being read: either the client left, or it pipelines (then watching ends).
  void watch() {
    socket().async_wait(tcp::socket::wait_read, [self = this->shared_from_this()](beast::error_code error) {
      if (error || self->closed_ || self->ended_) return;
      char byte;
      const auto count = ::recv(self->socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (count == 0 || (count < 0 && errno != EAGAIN)) self->close();
    });
  }

  void write_next() {
    writing_ = true;
    arm(shared_->limits.idle_timeout_ms);
    asio::async_write(stream_, asio::buffer(queue_.front()),
                      [self = this->shared_from_this()](beast::error_code error, std::size_t bytes) {
                        self->writing_ = false;
                        if (const auto answer = self->answer_.lock()) answer->written(bytes);
                        if (error || self->closed_) return self->close();
                        self->queue_.pop_front();
                        self->disarm();
                        if (!self->queue_.empty()) return self->write_next();
                        if (self->ended_) self->next();
                      });
  }

  void next() {
    if (closed_) return;
    if (refused_) return linger();
    if (close_after_) return close();
    gone_callback_ = nullptr;
    beast::error_code ignored;
    socket().cancel(ignored);  // ends the watch
    read_request();
  }

  void linger() {
    beast::error_code ignored;
    socket().shutdown(tcp::socket::shutdown_send, ignored);
    arm(kLingerMs);
    drop_input();
  }

  void drop_input() {
    buffer_.clear();
    socket().async_read_some(buffer_.prepare(kLingerPieceBytes),
                             [self = this->shared_from_this()](beast::error_code error, std::size_t) {
                               if (error || self->closed_) return self->close();
                               self->drop_input();
                             });
  }

  std::shared_ptr<Shared> shared_;  // shared with the server and all connections
  Stream stream_;
  asio::steady_timer timer_;
  beast::flat_buffer buffer_;
  std::optional<bhttp::request_parser<bhttp::string_body>> parser_;
  std::string remote_;
  std::weak_ptr<Answer<Stream>> answer_;
  std::deque<std::string> queue_;
  std::function<void()> gone_callback_;
  bool keep_alive_ = true;
  bool reading_body_ = false;
  bool refused_ = false;
  bool ended_ = false;
  bool writing_ = false;
  bool close_after_ = false;
  bool closed_ = false;
};

}  // namespace

void serve_plain(std::shared_ptr<Shared> shared, tcp::socket socket) {
  std::make_shared<Connection<tcp::socket>>(std::move(shared), std::move(socket))->run();
}

void serve_tls(std::shared_ptr<Shared> shared, tcp::socket socket, asio::ssl::context& context) {
  std::make_shared<Connection<TlsStream>>(std::move(shared), TlsStream(std::move(socket), context))->run();
}

}  // namespace capstan::http

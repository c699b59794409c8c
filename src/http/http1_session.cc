// HTTP/1.1 on one connection. How: one request at a time; the next is read when the answer is written. A refusal
// before the request was read whole is followed by a moment of reading on: closing at once would reset the
// connection, and the client might never see why.
#include <array>
#include <charconv>

#include "base/text.h"
#include "http/connection.h"
#include "http/http1_reader.h"

namespace capstan::http {
namespace {

constexpr int kLingerMs = 5'000;

// Written by the session itself.
bool is_framing(std::string_view name) {
  return (name.size() == 14 && to_lower(name) == "content-length") ||
         (name.size() == 17 && to_lower(name) == "transfer-encoding");
}

// fmt's way through its format strings costs more than the number.
void append_number(std::string& out, std::uint64_t number, int base) {
  std::array<char, 20> text;
  out.append(text.data(), std::to_chars(text.data(), text.data() + text.size(), number, base).ptr);
}

void append_head(std::string& out, int status, const Headers& headers) {
  out.append("HTTP/1.1 ");
  append_number(out, static_cast<std::uint64_t>(status), 10);
  out.append(" ").append(reason_phrase(status)).append("\r\n");
  for (const auto& [name, value] : headers.all()) {
    // A line break in a value would let it forge headers.
    if (value.find_first_of("\r\n") != std::string::npos || is_framing(name)) continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
}

class Http1Session final : public Session {
 public:
  explicit Http1Session(Connection& connection)
      : connection_(connection),
        reader_({connection.shared().limits.header_bytes_max, connection.shared().limits.body_bytes_max,
                 [&router = connection.shared().router](std::string_view method, std::string_view target) {
                   return router.large_body_max(method, target);
                 }}) {}
  ~Http1Session() override { count_body(0); }

  std::size_t on_bytes(std::string_view bytes) override {
    if (state_ == State::kLingering) return bytes.size();
    if (state_ == State::kAnswering || state_ == State::kKeeping) return 0;
    if (state_ == State::kIdle && !bytes.empty()) {
      state_ = State::kHeader;
      arm(limits().request_timeout_ms);
    }
    const std::size_t used = reader_.feed(bytes);
    if (reader_.failed()) return refuse(reader_.refusal().status, reader_.refusal().message), used;
    if (state_ == State::kHeader && reader_.header_done()) {
      state_ = State::kBody;
      arm(limits().request_timeout_ms);
      if (!reader_.done() && reader_.expects_continue()) {
        connection_.output().add("HTTP/1.1 100 Continue\r\n\r\n");
        connection_.want_flush();
      }
    }
    if (!count_body(reader_.body_bytes()))
      return refuse(503, "too many requests are being received; try again in a moment"), used;
    if (reader_.may_be_large() && (body_file_ || reader_.body_bytes() > kBodyHeldBytes)) {
      keep_some();
    } else if (reader_.done()) {
      dispatch();
    }
    return used;
  }

  void on_kept(std::int32_t, const Result<void>& kept) override {
    if (state_ != State::kKeeping) return;
    if (!kept) return refuse(status_of_lost_body(kept.error()), kept.error().message);
    if (reader_.done()) return dispatch();
    state_ = State::kBody;
    arm(limits().request_timeout_ms);
  }

  void send_whole(std::int32_t, Response response) override {
    const bool bodiless = response.status == 204 || response.status == 304;
    std::string& out = connection_.output().tail();
    append_head(out, response.status, response.headers);
    if (!bodiless) {
      out.append("content-length: ");
      append_number(out, response.content().size(), 10);
      out.append("\r\n");
    }
    end_head(out);
    if (!head_ && !bodiless && response.body_file) {
      connection_.output().add_file(std::move(response.body_file));
    } else if (!head_ && !bodiless) {
      connection_.output().add_whole(std::move(response.body));
    }
    ended();
  }

  void send_head(std::int32_t, int status, Headers headers) override {
    chunked_ = !http10_;
    if (!chunked_) close_after_ = true;
    std::string& out = connection_.output().tail();
    append_head(out, status, headers);
    if (chunked_) out += "transfer-encoding: chunked\r\n";
    end_head(out);
    connection_.want_flush();
  }

  void send_piece(std::int32_t, std::string_view piece) override {
    if (head_ || state_ != State::kAnswering) return;
    OutputQueue& output = connection_.output();
    std::string& out = output.tail();
    if (chunked_) {
      append_number(out, piece.size(), 16);
      out.append("\r\n");
    }
    out.append(piece);
    if (chunked_) out.append("\r\n");
    if (const auto answer = answer_.lock()) answer->set_unsent(output.bytes());
    connection_.want_flush();
  }

  void send_end(std::int32_t) override {
    if (chunked_ && !head_) connection_.output().add("0\r\n\r\n");
    ended();
  }

  void abort(std::int32_t) override { connection_.close(); }
  void before_flush() override {}

  void on_flushed() override {
    const bool all = connection_.output().empty();
    const auto answer = answer_.lock();
    if (answer) answer->set_unsent(connection_.output().bytes());
    if (!all || !connection_.is_open()) return;
    if (state_ == State::kAnswering && !ended_) return connection_.timer().disarm();
    if (!ended_) return;
    if (answer) answer->over();
    next();
  }

  void on_timer() override {
    if (state_ == State::kBody || state_ == State::kHeader)
      return refuse(408, "the request did not arrive in time");
    connection_.close();  // idle, or a write that makes no progress, or the end of lingering
  }

  void drain() override {
    close_after_ = true;
    if (state_ == State::kIdle) connection_.close();
  }

  void on_closed() override {
    count_body(0);
    if (const auto answer = answer_.lock()) {
      if (ended_) return answer->over();
      answer->mark_gone();
    }
  }

 private:
  enum class State { kIdle, kHeader, kBody, kKeeping, kAnswering, kLingering };
  const ServerLimits& limits() { return connection_.shared().limits; }
  void arm(int timeout_ms) { connection_.timer().arm(timeout_ms); }

  bool count_body(std::size_t bytes) { return connection_.shared().count_body(counted_bytes_, bytes); }

  // Nothing more is read until it is on disk.
  void keep_some() {
    if (!reader_.done() && reader_.body_bytes() <= kBodyHeldBytes) return;
    if (!body_file_) body_file_ = std::make_shared<BodyFile>(connection_.shared().body_room);
    connection_.timer().disarm();
    state_ = State::kKeeping;
    connection_.keep_body(body_file_, reader_.take_body(), reader_.done(), 0);
  }

  void dispatch() {
    connection_.timer().disarm();
    count_body(0);
    keep_alive_ = reader_.keep_alive() && !connection_.shared().stopping;
    Request request = reader_.take();
    request.body_file = std::exchange(body_file_, nullptr);
    begin_answer(request.method == "HEAD", request.http_version == "1.0");
    // The handler may answer at once, through a weak reference that is not there yet: nothing is flushed before
    // this event's end.
    answer_ = connection_.dispatch(std::move(request), 0);
  }

  void begin_answer(bool head, bool http10) {
    state_ = State::kAnswering;
    head_ = head;
    http10_ = http10;
    chunked_ = false;
    ended_ = false;
    answer_.reset();
  }

  void refuse(int status, const std::string& message) {
    keep_alive_ = false;
    refused_ = true;
    body_file_.reset();
    count_body(0);
    begin_answer(false, false);
    connection_.timer().disarm();
    send_whole(0, Response::json(status, Json::object({{"error", Json::object({{"code", "invalid"},
                                                                               {"message", message}})}})));
  }

  void end_head(std::string& out) {
    out += close_after_ || !keep_alive_ ? "connection: close\r\n\r\n" : "\r\n";
  }

  void ended() {
    ended_ = true;
    connection_.want_flush();
  }

  void next() {
    if (refused_) {
      state_ = State::kLingering;
      connection_.shutdown_send();
      arm(kLingerMs);
      return connection_.resume_input();
    }
    if (close_after_ || !keep_alive_) return connection_.close();
    state_ = State::kIdle;
    ended_ = false;
    answer_.reset();
    arm(limits().idle_timeout_ms);
    connection_.resume_input();
  }

  Connection& connection_;
  RequestReader reader_;
  State state_ = State::kIdle;
  std::weak_ptr<Answer> answer_;
  std::shared_ptr<BodyFile> body_file_;  // shared with the thread that writes it
  std::size_t counted_bytes_ = 0;
  bool keep_alive_ = true;
  bool close_after_ = false;
  bool refused_ = false;
  bool head_ = false;
  bool http10_ = false;
  bool chunked_ = false;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<Session> make_http1_session(Connection& connection) {
  return std::make_unique<Http1Session>(connection);
}

}  // namespace capstan::http

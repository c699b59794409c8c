// How: the socket's readiness drives everything. Bytes go to the session, which consumes whole messages; what it
// leaves waits in `input_`, at most kInputBytesMax, after which nothing is read. Output is gathered while an event
// is handled and written once after it.
#include "http/connection.h"

#include <sys/epoll.h>

#include <boost/asio/post.hpp>

#include "base/log.h"

namespace capstan::http {
namespace {

constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::size_t kInputBytesMax = 256u << 10;  // of pipelined requests that wait

Response error_response(int status, std::string message) {
  return Response::json(
      status, Json::object({{"error", Json::object({{"code", "invalid"}, {"message", std::move(message)}})}}));
}

}  // namespace

Connection::Connection(std::shared_ptr<Shared> shared, int fd, SslPtr ssl, std::string remote_address)
    : shared_(std::move(shared)),
      transport_(ssl ? Transport(fd, std::move(ssl)) : Transport(fd)),
      remote_address_(std::move(remote_address)),
      session_(make_http1_session(*this)),
      timer_(shared_->loop,
             [this] {
               const auto self = shared_from_this();
               const bool stuck = write_blocked_ && shared_->loop.now_ms() - progress_ms_ >= shared_->limits.idle_timeout_ms;
               if (handshaking_ || stuck) return close();
               session_->on_timer();
             }),
      handshaking_(transport_.is_tls()) {}

// Perhaps on a handler's thread, whose answer was the last that held it: close() has left nothing of the loop's.
Connection::~Connection() = default;

void Connection::start() {
  shared_->connections.insert(shared_from_this());
  interest_ = EPOLLIN | EPOLLRDHUP;
  shared_->loop.watch(transport_.fd(), interest_, *this);
  timer_.arm(handshaking_ ? shared_->limits.request_timeout_ms : shared_->limits.idle_timeout_ms);
}

void Connection::close() {
  if (!is_open()) return;
  shared_->loop.unwatch(transport_.fd(), *this);
  transport_.close();
  timer_.cancel();
  output_.clear();
  input_.clear();
  const auto self = shared_from_this();
  session_->on_closed();
  shared_->connections.erase(self);
}

void Connection::drain() {
  if (is_open()) session_->drain();
}

void Connection::on_ready(std::uint32_t events) {
  const auto self = shared_from_this();
  if (handshaking_) {
    const auto status = transport_.handshake();
    if (status == Transport::Status::kBlocked) return set_interest();
    if (status != Transport::Status::kOk) return close();
    handshaking_ = false;
    timer_.arm(shared_->limits.idle_timeout_ms);
    set_interest();
    if (transport_.is_tls()) read_some();
    return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    if ((interest_ & EPOLLIN) == 0) return close();  // it left while it waits for its answers
    read_some();
  }
  if (is_open() && (events & EPOLLOUT) != 0) {
    write_blocked_ = false;
    want_flush();
  }
}

void Connection::read_some() {
  while (is_open()) {
    const auto read = transport_.read(shared_->scratch.data(), shared_->scratch.size());
    if (read.status == Transport::Status::kBlocked) return set_interest();
    if (read.status != Transport::Status::kOk) return close();
    feed({shared_->scratch.data(), read.bytes});
    // TLS holds bytes back that epoll does not see.
    if (!transport_.is_tls() || input_.size() > kInputBytesMax) return;
  }
}

void Connection::feed(std::string_view bytes) {
  feeding_ = true;
  if (input_.empty()) {
    while (is_open() && !bytes.empty()) {
      const std::size_t used = sniff(bytes);
      if (used == 0) break;
      bytes.remove_prefix(used);
    }
    if (is_open()) input_ = bytes;
  } else {
    input_ += bytes;
  }
  feeding_ = false;
  resume_input();
  if (is_open()) set_interest();
}

void Connection::resume_input() {
  if (feeding_) return;
  feeding_ = true;
  std::size_t consumed = 0;
  while (is_open() && consumed < input_.size()) {
    const std::size_t used = sniff(std::string_view(input_).substr(consumed));
    if (used == 0) break;
    consumed += used;
  }
  if (is_open()) input_.erase(0, consumed);
  feeding_ = false;
}

void Connection::keep_body(std::shared_ptr<BodyFile> file, std::string bytes, bool last, std::int32_t stream) {
  boost::asio::post(shared_->pool, [self = shared_from_this(), file = std::move(file), bytes = std::move(bytes), last, stream] {
    Result<void> kept = file->append(bytes);
    if (kept && last) kept = file->finish();
    self->shared_->loop.post([self, stream, kept = std::move(kept)] {
      if (!self->is_open()) return;
      self->session_->on_kept(stream, kept);
      self->resume_input();
      if (self->is_open()) self->set_interest();
    });
  });
}

// HTTP/2 begins with its preface, on the same port.
std::size_t Connection::sniff(std::string_view bytes) {
  if (first_) {
    const bool prefix = kHttp2Preface.starts_with(bytes.substr(0, kHttp2Preface.size()));
    if (prefix && bytes.size() < kHttp2Preface.size()) return 0;
    if (prefix) session_ = make_http2_session(*this);
    first_ = false;
  }
  return session_->on_bytes(bytes);
}

void Connection::want_flush() {
  if (std::exchange(flush_wanted_, true)) return;
  shared_->loop.flush_later(shared_from_this());
}

bool Connection::begin_flush() {
  flush_wanted_ = false;
  if (!is_open() || write_blocked_) return false;
  session_->before_flush();
  return true;
}

void Connection::send() {
  std::array<iovec, OutputQueue::kPiecesMax> room;
  send_status_ = Transport::Status::kOk;
  while (!output_.empty()) {
    const auto written = transport_.write(output_.front(room));
    send_status_ = written.status;
    if (written.status != Transport::Status::kOk) return;
    output_.sent(written.bytes);
  }
}

void Connection::end_flush() {
  const auto self = shared_from_this();
  while (is_open() && send_status_ == Transport::Status::kOk) {
    session_->before_flush();
    if (output_.empty()) break;
    send();
  }
  if (!is_open()) return;
  if (send_status_ == Transport::Status::kBlocked) {
    if (!write_blocked_) progress_ms_ = shared_->loop.now_ms();
    write_blocked_ = true;
    timer_.arm(shared_->limits.idle_timeout_ms);
  } else if (send_status_ != Transport::Status::kOk) {
    return close();
  }
  session_->on_flushed();
  if (is_open()) set_interest();
}

void Connection::set_interest() {
  std::uint32_t wanted = EPOLLRDHUP;
  if (input_.size() <= kInputBytesMax) wanted |= EPOLLIN;
  if (write_blocked_ || (transport_.is_tls() && transport_.wants_write())) wanted |= EPOLLOUT;
  if (wanted == interest_) return;
  interest_ = wanted;
  shared_->loop.rewatch(transport_.fd(), interest_, *this);
}

std::shared_ptr<Answer> Connection::dispatch(Request request, std::int32_t stream) {
  request.remote_address = remote_address_;
  auto answer = std::make_shared<Answer>(shared_, shared_from_this(), stream);
  if (const auto parsed = parse_target(request); !parsed) {
    answer->respond(error_response(400, parsed.error().message));
    return answer;
  }
  if (shared_->answers_under_way > shared_->limits.requests_max) {
    Response full = error_response(503, "too many requests are under way");
    full.headers.set("retry-after", "1");
    answer->respond(std::move(full));
    return answer;
  }
  Router::Target target = shared_->router.route(request);
  if (target.refusal) {
    answer->respond(*std::move(target.refusal));
  } else if (target.loop_handler != nullptr) {
    (*target.loop_handler)(std::move(request), answer);
  } else {
    boost::asio::post(shared_->pool, [handler = target.handler, request = std::move(request), answer] {
      try {
        (*handler)(request, answer);
      } catch (const std::exception& exception) {
        // A handler of ours does not throw; what a library threw becomes a 500 for this request only.
        log_error("a handler threw", "path={} what=\"{}\"", request.path, exception.what());
      }
    });
  }
  return answer;
}

}  // namespace capstan::http

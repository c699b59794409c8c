// How: a call on the loop's thread acts at once unless calls from other threads are still on their way, which it
// must not overtake. Back-pressure: a handler on the pool waits while too much is unsent; the loop is never
// blocked, its handlers ask unsent_bytes() and when_sent().
#include "http/answer.h"

#include "http/connection.h"

namespace capstan::http {

Answer::Answer(std::shared_ptr<Shared> shared, std::shared_ptr<Connection> connection, std::int32_t stream)
    : shared_(std::move(shared)), connection_(std::move(connection)), stream_(stream) {
  ++shared_->answers_under_way;
}

Answer::~Answer() {
  if (!over_) --shared_->answers_under_way;
  if (finished_ || gone_) return;
  // The handler forgot its request: what has begun breaks off, since an end would make it look whole.
  auto end = [connection = connection_, stream = stream_, started = started_.load()] {
    if (!connection->is_open()) return;
    if (started) return connection->session().abort(stream);
    connection->session().send_whole(
        stream, Response::json(500, Json::object({{"error", Json::object({{"code", "internal"},
                                                                          {"message", "the request was not answered"}})}})));
  };
  if (shared_->loop.in_loop()) {
    end();
  } else {
    shared_->loop.post(std::move(end));
  }
}

template <class Function>
void Answer::run(Function function) {
  if (shared_->loop.in_loop() && posted_calls_ == 0) {
    if (connection_->is_open() && !gone_) function(connection_->session());
    return;
  }
  ++posted_calls_;
  shared_->loop.post([self = shared_from_this(), function = std::move(function)]() mutable {
    --self->posted_calls_;
    if (self->connection_->is_open() && !self->gone_) function(self->connection_->session());
  });
}

void Answer::respond(Response response) {
  if (started_.exchange(true)) return;
  finished_ = true;
  if (shared_->loop.in_loop() && posted_calls_ == 0) {
    if (connection_->is_open() && !gone_) connection_->session().send_whole(stream_, std::move(response));
    return;
  }
  auto kept = std::make_shared<Response>(std::move(response));  // shared: std::function copies
  run([stream = stream_, kept](Session& session) { session.send_whole(stream, std::move(*kept)); });
}

void Answer::start(int status, Headers headers) {
  if (started_.exchange(true)) return;
  run([stream = stream_, status, headers = std::move(headers)](Session& session) mutable {
    session.send_head(stream, status, std::move(headers));
  });
}

bool Answer::write(std::string_view piece) {
  if (gone_ || finished_ || piece.empty()) return !gone_;
  if (unsent_bytes() > shared_->limits.write_queue_bytes_max && !wait_for_room()) {
    run([stream = stream_](Session& session) { session.abort(stream); });
    gone_ = true;
    return false;
  }
  if (shared_->loop.in_loop() && posted_calls_ == 0) {
    if (connection_->is_open()) connection_->session().send_piece(stream_, piece);
    return !gone_;
  }
  posted_bytes_ += piece.size();
  ++posted_calls_;
  shared_->loop.post([self = shared_from_this(), text = std::string(piece)] {
    --self->posted_calls_;
    self->posted_bytes_ -= text.size();
    if (self->connection_->is_open() && !self->gone_) self->connection_->session().send_piece(self->stream_, text);
  });
  return !gone_;
}

void Answer::finish() {
  if (finished_.exchange(true)) return;
  run([stream = stream_](Session& session) { session.send_end(stream); });
}

void Answer::on_client_gone(std::function<void()> callback) {
  if (shared_->loop.in_loop()) {
    if (gone_) return callback();
    gone_callback_ = std::move(callback);
    return;
  }
  shared_->loop.post([self = shared_from_this(), callback = std::move(callback)]() mutable {
    if (self->gone_) return callback();
    if (!self->over_) self->gone_callback_ = std::move(callback);
  });
}

void Answer::when_sent(std::function<void()> callback) { sent_callback_ = std::move(callback); }

void Answer::mark_gone() {
  {
    const std::scoped_lock lock(room_mutex_);
    gone_ = true;
    room_.notify_all();
  }
  if (auto callback = std::exchange(gone_callback_, nullptr)) callback();
  sent_callback_ = nullptr;
  over();
}

void Answer::set_unsent(std::size_t bytes) {
  unsent_bytes_ = bytes;
  if (waiting_for_room_ > 0 && bytes <= shared_->limits.write_queue_bytes_max / 2) {
    const std::scoped_lock lock(room_mutex_);
    room_.notify_all();
  }
  if (sent_callback_ && bytes <= kUnsentLowBytes) std::exchange(sent_callback_, nullptr)();
}

void Answer::over() {
  if (std::exchange(over_, true)) return;
  --shared_->answers_under_way;
  gone_callback_ = nullptr;
}

// It ends in any case, since a write that makes no progress closes the connection.
bool Answer::wait_for_room() {
  if (!shared_->pool.get_executor().running_in_this_thread()) return false;
  std::unique_lock lock(room_mutex_);
  ++waiting_for_room_;  // before it looks: whoever makes room from now on tells
  room_.wait(lock, [this] { return gone_ || unsent_bytes() <= shared_->limits.write_queue_bytes_max / 2; });
  --waiting_for_room_;
  return !gone_;
}

}  // namespace capstan::http

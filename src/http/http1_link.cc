// How: in turn connecting, shaking hands, busy with one call, kept. A kept link is watched, so that one whose server leaves
// is gone before it is used.
#include "http/http1_link.h"

#include <sys/epoll.h>

#include <array>
#include <cstring>

namespace capstan::http {

bool Http1Link::open(std::string& why) {
  const int fd = begin_connect(*peer_, why);
  if (fd < 0) return false;
  if (peer_->url.tls) {
    if (!state_.tls) state_.tls = client_tls();
    transport_ = std::make_unique<Transport>(fd, connect_tls(*state_.tls, peer_->url.host));
  } else {
    transport_ = std::make_unique<Transport>(fd);
  }
  interest_ = EPOLLOUT;
  state_.loop.watch(fd, interest_, *this);
  return true;
}

void Http1Link::close() {
  if (!transport_ || !transport_->is_open()) return;
  state_.loop.unwatch(transport_->fd(), *this);
  transport_->close();
}

void Http1Link::begin(Call& call) {
  call_ = &call;
  head_ = call.head_bytes();
  sent_ = 0;
  paused_ = false;
  streams_ = false;
  pending_.clear();
  reader_.start(call.head_request());
  if (step_ != Step::kKept) return;
  used_ = true;
  step_ = Step::kSending;
  send();
}

void Http1Link::set_interest(std::uint32_t wanted) {
  if (wanted == interest_) return;
  interest_ = wanted;
  state_.loop.rewatch(transport_->fd(), wanted, *this);
}

void Http1Link::pause(bool paused) {
  paused_ = paused;
  if (step_ == Step::kReceiving) set_interest(paused ? 0u : EPOLLIN);
}

Error Http1Link::broken(std::string_view what) const {
  return {Code::kUnavailable, fmt::format("{} {}: {}", what, peer_->authority, transport_->failure()), {}};
}

void Http1Link::on_ready(std::uint32_t events) {
  if (step_ == Step::kConnecting) return connected();
  if (step_ == Step::kHandshake) return shake_hands();
  if (step_ == Step::kKept) return state_.drop_kept(*this);  // its server left, or says what nobody asked for
  if (step_ == Step::kSending && (events & EPOLLOUT) != 0) send();
  if (call_ != nullptr && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive();
}

void Http1Link::connected() {
  const int error = connect_error(transport_->fd());
  if (error != 0)
    return fail_call({Code::kUnavailable, fmt::format("cannot connect to {}: {}", peer_->authority, std::strerror(error)), {}});
  step_ = Step::kHandshake;
  shake_hands();
}

void Http1Link::shake_hands() {
  const auto status = transport_->handshake();
  if (status == Transport::Status::kBlocked) return set_interest(transport_->wants_write() ? EPOLLOUT : EPOLLIN);
  if (status != Transport::Status::kOk) return fail_call(broken("TLS handshake failed with"));
  step_ = Step::kSending;
  call_->on_connected();
  send();
}

void Http1Link::send() {
  const std::size_t all = head_.size() + call_->body.size();
  while (sent_ < all) {
    std::array<iovec, 2> pieces;
    std::size_t count = 0;
    if (sent_ < head_.size()) pieces[count++] = {head_.data() + sent_, head_.size() - sent_};
    const std::size_t body_sent = sent_ > head_.size() ? sent_ - head_.size() : 0;
    if (body_sent < call_->body.size())
      pieces[count++] = {const_cast<char*>(call_->body.data()) + body_sent, call_->body.size() - body_sent};
    const auto written = transport_->write(std::span(pieces.data(), count));
    // A server may answer, and close, before it has read everything.
    if (written.status == Transport::Status::kBlocked) return set_interest(EPOLLOUT | EPOLLIN);
    if (written.status != Transport::Status::kOk) {
      step_ = Step::kReceiving;
      return set_interest(EPOLLIN);
    }
    sent_ += written.bytes;
    call_->touch();
  }
  step_ = Step::kReceiving;
  set_interest(paused_ ? 0u : EPOLLIN);
}

void Http1Link::receive() {
  const auto alive = call_->alive();
  do {
    const auto read = transport_->read(state_.scratch.data(), state_.scratch.size());
    if (read.status == Transport::Status::kBlocked) return;
    if (read.status != Transport::Status::kOk) {
      const bool any = reader_.any_bytes();
      if (read.status == Transport::Status::kEnd && any) {
        if (auto end = reader_.feed_end(); end) return done(false);
      }
      return fail_call(read.status == Transport::Status::kEnd
                           ? Error{Code::kUnavailable,
                                   fmt::format("{} closed the connection before the answer's end", peer_->authority),
                                   {}}
                           : broken("the answer broke off from"));
    }
    call_->touch();
    hand_out({state_.scratch.data(), read.bytes});
  } while (*alive && call_ != nullptr && transport_->is_tls() && !paused_);
}

void Http1Link::hand_out(std::string_view bytes) {
  if (!pending_.empty()) {
    pending_.append(bytes);
    bytes = pending_;
  }
  const auto alive = call_->alive();
  Call* const call = call_;
  const ResponseReader::Callbacks callbacks{[call](Response& head) { call->head(head); },
                                            [call](std::string_view piece) { call->piece(piece); },
                                            [&alive] { return *alive; }};
  const auto used = reader_.feed(bytes, callbacks);
  if (!*alive) return;  // the call is given up, and this link is buried
  if (!used) return fail_call(Error(used.error()));
  if (reader_.done()) return done(*used == bytes.size());
  pending_ = std::string(bytes.substr(*used));
  if (!std::exchange(streams_, true)) transport_->delay_acknowledgements();
}

void Http1Link::done(bool reusable) {
  Call& call = *std::exchange(call_, nullptr);
  auto self = call.take_link();
  if (reusable && reader_.keep_alive() && sent_ == head_.size() + call.body.size()) {
    step_ = Step::kKept;
    set_interest(EPOLLIN);
    state_.keep(std::move(self));
  } else {
    state_.bury(std::move(self));
  }
  call.end({});
}

void Http1Link::fail_call(Error error) {
  Call& call = *std::exchange(call_, nullptr);
  const bool retry = used_ && !reader_.any_bytes() && !call.head_seen();
  state_.bury(call.take_link());
  if (retry) return call.retry(std::move(error));
  call.end(std::unexpected(std::move(error)));
}

}  // namespace capstan::http

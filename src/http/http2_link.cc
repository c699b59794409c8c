// How: bytes go in by mem_recv, whose callbacks reach the calls; frames come out by mem_send when the event is handled, so that
// what several calls have to say travels together. Windows are given back by hand: a paused call's stays shut.
#include "http/http2_link.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/text.h"
#include "http/http2_fields.h"

namespace capstan::http {
namespace {

constexpr std::size_t kOutputBytesMax = 256u << 10;  // in the connection's queue; the rest waits in its streams
constexpr std::size_t kHeadBytesMax = 64u << 10;
constexpr int kStreamWindowBytes = 256 << 10;
constexpr int kWindowBytes = 16 << 20;
constexpr std::size_t kStreamsBeforeSettings = 100;  // what RFC 9113 recommends to every server
constexpr int kReadsMax = 16;  // a turn
constexpr std::uint32_t kIdLast = 1u << 30;
constexpr int kUnacknowledgedMsMax = 20'000;  // then the server's host is taken for lost

}  // namespace

Http2Link::Http2Link(AsyncClient::State& state, PeerPtr peer)
    : state_(state.shared_from_this()), peer_(std::move(peer)), idle_since_ms_(state.loop.now_ms()) {
  make_session();
}

Http2Link::~Http2Link() {
  close();
  nghttp2_session_del(session_);
}

void Http2Link::make_session() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes},
                                             {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kHeadBytesMax}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
}

bool Http2Link::open(std::string& why) {
  const int fd = begin_connect(*peer_, why);
  if (fd < 0) return false;
  const int unacknowledged_ms = kUnacknowledgedMsMax, on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms, sizeof unacknowledged_ms);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  const int probe_s = kUnacknowledgedMsMax / 1'000;
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &probe_s, sizeof probe_s);
  transport_ = std::make_unique<Transport>(fd);
  interest_ = EPOLLOUT;
  state_->loop.watch(fd, interest_, *this);
  return true;
}

void Http2Link::close() {
  state_->drop_multiplexed(*this);
  if (!transport_ || !transport_->is_open()) return;
  state_->loop.unwatch(transport_->fd(), *this);
  transport_->close();
}

bool Http2Link::has_room() const {
  if (draining_ || nghttp2_session_get_next_stream_id(session_) > kIdLast) return false;
  const std::size_t allowed = settled_ ? nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
                                       : kStreamsBeforeSettings;
  return streams_.size() < std::min(kStreamsMax, allowed);
}

std::int32_t Http2Link::begin(Call& call) {
  const Request& request = call.request();
  std::vector<nghttp2_nv> fields;
  fields.reserve(request.headers.all().size() + 5);
  const std::string* host = request.headers.find("host");
  fields.push_back(http2_field(":method", request.method));
  fields.push_back(http2_field(":scheme", "http"));
  fields.push_back(http2_field(":authority", host != nullptr ? *host : peer_->authority));
  fields.push_back(http2_field(":path", request.target));
  for (const auto& [name, value] : request.headers.all()) {
    const std::string lower = to_lower(name);
    if (is_connection_field(lower) || lower == "host" || lower == "content-length") continue;
    // A request's own name is not worth a place in the table of what repeats.
    fields.push_back(http2_field(name, value, name == "x-request-id" ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE));
  }
  std::array<char, 20> digits;
  if (!call.body.empty()) {
    const auto end = std::to_chars(digits.begin(), digits.end(), call.body.size()).ptr;
    fields.push_back(http2_field("content-length", {digits.data(), end}));
  }
  const nghttp2_data_provider provider{.source = {.ptr = nullptr}, .read_callback = read_body};
  const std::int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(),
                                                 call.body.empty() ? nullptr : &provider, nullptr);
  if (id < 0) {
    call.later_end({Code::kUnavailable, fmt::format("a request cannot be sent: {}", nghttp2_strerror(id)), {}});
    return 0;
  }
  Stream& stream = streams_[id];
  stream.call = &call;
  stream.received_before = received_;
  want_flush();
  return id;
}

Call* Http2Link::take(std::int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return nullptr;
  Call* const call = found->second.call;
  streams_.erase(found);
  if (streams_.empty()) idle_since_ms_ = state_->loop.now_ms();
  return call;
}

void Http2Link::release(std::int32_t id) {
  if (take(id) == nullptr) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  want_flush();
}

void Http2Link::pause(std::int32_t id, bool paused) {
  const Stream* stream = find(id);
  if (paused || stream == nullptr || (stream->held.empty() && !stream->whole)) return;
  state_->loop.post([self = shared_from_this(), id] { self->deliver_held(id); });
}

void Http2Link::deliver_held(std::int32_t id) {
  Stream* stream = find(id);
  if (stream == nullptr || stream->call->paused()) return;
  const std::string held = std::exchange(stream->held, {});
  nghttp2_session_consume_stream(session_, id, held.size());
  want_flush();
  if (!held.empty()) stream->call->piece(held);
  stream = find(id);
  if (stream != nullptr && stream->whole && !stream->call->paused()) finish(id, *stream);
}

void Http2Link::finish(std::int32_t id, Stream& stream) {
  const bool sent = stream.body_sent == stream.call->body.size();
  Call* const call = take(id);
  if (!sent) {  // it answered before it had read everything
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    want_flush();
  }
  call->end({});
}

int Http2Link::on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_bytes,
                         const std::uint8_t* value, std::size_t value_bytes, std::uint8_t, void* data) {
  Stream* stream = self(data).find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  stream->head_bytes += name_bytes + value_bytes + 32;  // as RFC 9113 counts a header list
  if (stream->head_bytes > kHeadBytesMax) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const std::string_view key(reinterpret_cast<const char*>(name), name_bytes);
  const std::string_view text(reinterpret_cast<const char*>(value), value_bytes);
  if (key == ":status") {
    stream->head = {};
    std::from_chars(text.data(), text.data() + text.size(), stream->head.status);
  } else {
    stream->head.headers.add(std::string(key), std::string(text));
  }
  return 0;
}

int Http2Link::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* data) {
  Http2Link& link = self(data);
  const int type = frame->hd.type;
  const std::int32_t id = frame->hd.stream_id;
  if (type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) link.settled_ = true;
  if (type == NGHTTP2_GOAWAY) {
    link.draining_ = true;
    link.state_->drop_multiplexed(link);
  }
  if (type != NGHTTP2_HEADERS && type != NGHTTP2_DATA) return 0;
  Stream* stream = link.find(id);
  // An interim answer (1xx), or fields after the body.
  const bool head = type == NGHTTP2_HEADERS && stream != nullptr && stream->head.status >= 200 && !stream->call->head_seen();
  if (head) {
    stream->call->touch();
    stream->call->head(stream->head);
    stream = link.find(id);
  }
  if (stream == nullptr || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  stream->whole = true;
  if (!stream->call->paused() && stream->held.empty()) link.finish(id, *stream);
  return 0;
}

int Http2Link::on_data(nghttp2_session* session, std::uint8_t, std::int32_t id, const std::uint8_t* bytes, std::size_t count,
                       void* data) {
  Stream* stream = self(data).find(id);
  const std::string_view piece(reinterpret_cast<const char*>(bytes), count);
  if (stream != nullptr && (stream->call->paused() || !stream->held.empty())) {  // what is held goes first
    stream->held.append(piece);
    nghttp2_session_consume_connection(session, count);
    return 0;
  }
  nghttp2_session_consume(session, id, count);
  if (stream == nullptr) return 0;
  stream->call->touch();
  stream->call->piece(piece);
  return 0;
}

int Http2Link::on_stream_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* data) {
  Http2Link& link = self(data);
  const Stream* stream = link.find(id);
  if (stream == nullptr || stream->whole) return 0;
  // It did not begin: RFC 9113, 8.7.
  const bool retry = error == NGHTTP2_REFUSED_STREAM && !stream->call->head_seen();
  Error why{Code::kUnavailable,
            fmt::format("the answer broke off from {}: {}", link.peer_->authority, nghttp2_http2_strerror(error)),
            {}};
  Call* const call = link.take(id);
  retry ? call->retry(std::move(why)) : call->end(std::unexpected(std::move(why)));
  return 0;
}

ssize_t Http2Link::read_body(nghttp2_session*, std::int32_t id, std::uint8_t* to, std::size_t count, std::uint32_t* flags,
                             nghttp2_data_source*, void* data) {
  Stream* stream = self(data).find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const std::string_view rest = stream->call->body.substr(stream->body_sent);
  const std::size_t part = std::min(rest.size(), count);
  std::copy_n(rest.data(), part, to);
  stream->body_sent += part;
  if (part == rest.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  stream->call->touch();
  return static_cast<ssize_t>(part);
}

void Http2Link::on_ready(std::uint32_t events) {
  const auto keep = shared_from_this();
  if (!connected_) {
    if (const int error = connect_error(transport_->fd()); error != 0)
      return lost({Code::kUnavailable, fmt::format("cannot connect to {}: {}", peer_->authority, std::strerror(error)), {}});
    connected_ = true;
    for (auto& [id, stream] : streams_) stream.call->on_connected();
    return flush();
  }
  if ((events & EPOLLOUT) != 0) flush();
  if (transport_->is_open() && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) receive();
}

// Whoever lags reads more at once, so that what one stream says in several frames goes on in one piece.
void Http2Link::receive() {
  for (int reads = 0; reads < kReadsMax; ++reads) {
    const auto read = transport_->read(state_->scratch.data(), state_->scratch.size());
    if (read.status == Transport::Status::kBlocked) break;
    if (read.status == Transport::Status::kEnd)
      return lost({Code::kUnavailable, fmt::format("{} closed the connection before the answer's end", peer_->authority), {}});
    if (read.status != Transport::Status::kOk)
      return lost({Code::kUnavailable,
                   fmt::format("the answer broke off from {}: {}", peer_->authority, transport_->failure()),
                   {}});
    received_ += read.bytes;
    const auto used =
        nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(state_->scratch.data()), read.bytes);
    if (used < 0)
      return lost({Code::kInvalid,
                   fmt::format("{} does not speak HTTP/2: {}", peer_->authority, nghttp2_strerror(static_cast<int>(used))),
                   {}});
    if (!transport_->is_open() || read.bytes < state_->scratch.size()) break;
  }
  if (!transport_->is_open()) return;
  if (nghttp2_session_want_write(session_) != 0) want_flush();
  if (draining_ && streams_.empty()) close();
}

void Http2Link::want_flush() {
  if (!connected_ || std::exchange(flush_wanted_, true)) return;
  state_->loop.flush_later(shared_from_this());
}

// One connection carries all streams: there is nothing to share out.
bool Http2Link::begin_flush() {
  flush();
  return false;
}

void Http2Link::flush() {
  const auto keep = shared_from_this();
  flush_wanted_ = false;
  if (!transport_->is_open()) return;
  std::array<iovec, OutputQueue::kPiecesMax> room;
  for (;;) {
    while (output_.bytes() < kOutputBytesMax) {
      const std::uint8_t* bytes = nullptr;
      const auto count = nghttp2_session_mem_send(session_, &bytes);
      if (count <= 0) break;
      output_.add({reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count)});
    }
    if (output_.empty()) {
      const bool over = nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
      if (over) return lost({Code::kInvalid, fmt::format("{} does not speak HTTP/2", peer_->authority), {}});
      return set_interest(EPOLLIN);
    }
    const auto written = transport_->write(output_.front(room));
    if (written.status == Transport::Status::kBlocked) return set_interest(EPOLLIN | EPOLLOUT);
    if (written.status != Transport::Status::kOk)
      return lost({Code::kUnavailable, fmt::format("{} broke off: {}", peer_->authority, transport_->failure()), {}});
    output_.sent(written.bytes);
  }
}

void Http2Link::set_interest(std::uint32_t wanted) {
  if (wanted == interest_) return;
  interest_ = wanted;
  state_->loop.rewatch(transport_->fd(), wanted, *this);
}

// Nothing came since it began, on a connection that had served before: it was dead already, as kept ones may be.
bool Http2Link::may_retry(const Stream& stream) const {
  return stream.received_before > 0 && stream.received_before == received_ && !stream.call->head_seen();
}

void Http2Link::lost(const Error& error) {
  close();
  while (!streams_.empty()) {
    const auto first = streams_.begin();
    const bool retry = may_retry(first->second);
    Call* const call = take(first->first);
    retry ? call->retry(error) : call->end(std::unexpected(error));
  }
}

}  // namespace capstan::http

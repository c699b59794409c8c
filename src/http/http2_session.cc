// HTTP/2 on one connection, by nghttp2. How: bytes go in by mem_recv, whose callbacks gather requests; frames come out
// by mem_send whenever the connection's output has room, so a slow client holds back nothing but its own streams.
// Against floods: a budget of frames that cost us work and bring no request, limits on header lists, bodies and
// streams, and a sweep that ends streams whose client neither sends nor reads.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "http/connection.h"
#include "http/http2_fields.h"

namespace capstan::http {
namespace {

constexpr std::size_t kOutputBytesMax = 128u << 10;  // in the connection's queue; the rest waits in its streams
constexpr std::size_t kFieldsMax = 256;
constexpr double kIdleFramesBurst = 2'000;         // frames that bring nothing (resets, settings, pings, empty data)
constexpr double kIdleFramesPerMs = 0.2;
constexpr int kWindowBytes = 1 << 20;
constexpr int kLingerMs = 5'000;  // for a client to close its side
constexpr std::size_t kLingerBytes = 64u << 10;

// A request's body on its way; what may be large goes to a file.
struct Upload {
  std::uint64_t bytes_max = 0;
  bool large = false;
  std::shared_ptr<BodyFile> file = {};  // shared with the thread that writes it
  std::uint64_t kept_bytes = 0;   // given to the file
  std::size_t writing_bytes = 0;  // of these, in the write under way
  std::size_t unread_bytes = 0;   // of the stream's window: the client waits for the write
  bool writing = false;
  bool complete = false;  // all of the request has come
};

struct Stream {
  Request request;
  std::weak_ptr<Answer> answer;
  std::size_t header_bytes = 0;
  std::size_t counted_bytes = 0;  // of the body, against the common budget
  Upload upload = {};
  int refused = 0;                // a status, from here on its bytes are dropped
  bool dispatched = false;
  bool head = false;
  bool head_sent = false;
  bool ended = false;  // the answer
  OutputQueue pending;
  std::int64_t progress_ms = 0;  // it began, or its client took bytes of the answer
};

class Http2Session final : public Session {
 public:
  explicit Http2Session(Connection& connection);
  ~Http2Session() override { nghttp2_session_del(session_); }

  std::size_t on_bytes(std::string_view bytes) override;
  void send_whole(std::int32_t id, Response response) override;
  void send_head(std::int32_t id, int status, Headers headers) override;
  void send_piece(std::int32_t id, std::string_view piece) override;
  void send_end(std::int32_t id) override;
  // Not as cancelled, which some clients take for a clean end.
  void abort(std::int32_t id) override { reset(id, NGHTTP2_INTERNAL_ERROR); }
  void before_flush() override;
  void on_flushed() override {}
  void on_timer() override;
  void drain() override;
  void on_closed() override;
  void on_kept(std::int32_t id, const Result<void>& kept) override;

 private:
  static Http2Session& self(void* data) { return *static_cast<Http2Session*>(data); }
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* data);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_bytes,
                       const std::uint8_t* value, std::size_t value_bytes, std::uint8_t flags, void* data);
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* data);
  static int on_data(nghttp2_session*, std::uint8_t flags, std::int32_t id, const std::uint8_t* bytes,
                     std::size_t count, void* data);
  static int on_stream_close(nghttp2_session*, std::int32_t id, std::uint32_t error, void* data);
  static ssize_t read_body(nghttp2_session*, std::int32_t id, std::uint8_t* to, std::size_t count,
                           std::uint32_t* flags, nghttp2_data_source* source, void* data);

  const ServerLimits& limits() { return connection_.shared().limits; }
  std::int64_t now_ms() { return connection_.shared().loop.now_ms(); }
  Stream* find(std::int32_t id) {
    const auto found = streams_.find(id);
    return found == streams_.end() ? nullptr : &found->second;
  }
  void add_header(Stream& stream, std::string_view name, std::string_view value);
  bool count_body(Stream& stream, std::size_t bytes);
  void keep_body(std::int32_t id, Stream& stream);
  void received(std::int32_t id, Stream& stream);
  void complete(std::int32_t id, Stream& stream);
  void refuse(std::int32_t id, Stream& stream, int status, std::string_view message);
  void submit_head(std::int32_t id, int status, const Headers& headers, bool body);
  void reset(std::int32_t id, std::uint32_t error);
  void gone(std::int32_t id);
  bool spend_idle_frame();
  void leave();
  void arm() { connection_.timer().arm(std::min(limits().idle_timeout_ms, limits().request_timeout_ms)); }

  Connection& connection_;
  nghttp2_session* session_ = nullptr;
  std::map<std::int32_t, Stream> streams_;
  double idle_frames_ = kIdleFramesBurst;
  std::int64_t idle_frames_ms_;
  std::int64_t active_ms_;
  bool draining_ = false;
  bool terminated_ = false;
  bool left_ = false;  // all is said; what the client still sends is dropped
  std::size_t dropped_bytes_ = 0;
};

Http2Session::Http2Session(Connection& connection)
    : connection_(connection), idle_frames_ms_(now_ms()), active_ms_(now_ms()) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_max_settings(option, 32);
  nghttp2_option_set_max_outbound_ack(option, 256);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_session_server_new2(&session_, callbacks, this, option);
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, static_cast<std::uint32_t>(limits().streams_max)},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(limits().header_bytes_max)}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, 4 * kWindowBytes);
  arm();
  connection_.want_flush();
}

std::size_t Http2Session::on_bytes(std::string_view bytes) {
  if (left_ && (dropped_bytes_ += bytes.size()) > kLingerBytes) connection_.close();
  if (terminated_ || left_) return bytes.size();
  const auto used =
      nghttp2_session_mem_recv(session_, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  if (used < 0 && !terminated_) {
    const bool flooded = used == NGHTTP2_ERR_FLOODED;
    nghttp2_session_terminate_session(session_, flooded ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_PROTOCOL_ERROR);
    terminated_ = true;
  }
  connection_.want_flush();
  return bytes.size();
}

int Http2Session::on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* data) {
  Http2Session& session = self(data);
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  Stream& stream = session.streams_[frame->hd.stream_id];
  stream.request.http_version = "2";
  stream.request.target.clear();
  stream.upload.bytes_max = session.limits().body_bytes_max;
  stream.progress_ms = session.now_ms();
  return 0;
}

void Http2Session::add_header(Stream& stream, std::string_view name, std::string_view value) {
  Request& request = stream.request;
  if (name == ":method") {
    request.method = value;
  } else if (name == ":path") {
    request.target = value;
  } else if (name == ":authority") {
    request.headers.add("host", std::string(value));
  } else if (!name.starts_with(':')) {
    if (name == "host" && request.headers.find("host") != nullptr) return;
    request.headers.add(std::string(name), std::string(value));
  }
}

int Http2Session::on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                            std::size_t name_bytes, const std::uint8_t* value, std::size_t value_bytes,
                            std::uint8_t, void* data) {
  Http2Session& session = self(data);
  Stream* stream = session.find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  stream->header_bytes += name_bytes + value_bytes + 32;  // as RFC 9113 counts a header list
  // Unpacking on would only cost time: this one gets no answer.
  if (stream->header_bytes > 4 * session.limits().header_bytes_max) return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (stream->dispatched || stream->refused != 0) return 0;
  if (stream->header_bytes > session.limits().header_bytes_max || stream->request.headers.all().size() >= kFieldsMax) {
    stream->refused = 431;
    stream->request = Request{.http_version = "2"};
    return 0;
  }
  session.add_header(*stream, {reinterpret_cast<const char*>(name), name_bytes},
                     {reinterpret_cast<const char*>(value), value_bytes});
  return 0;
}

int Http2Session::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* data) {
  Http2Session& session = self(data);
  const int type = frame->hd.type;
  const bool content = type == NGHTTP2_HEADERS || (type == NGHTTP2_DATA && frame->hd.length > 0) ||
                       type == NGHTTP2_WINDOW_UPDATE || (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
  if (!content && !session.spend_idle_frame()) {
    nghttp2_session_terminate_session(session.session_, NGHTTP2_ENHANCE_YOUR_CALM);
    session.terminated_ = true;
    return 0;
  }
  Stream* stream = session.find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  if (type == NGHTTP2_WINDOW_UPDATE) return 0;
  if (type == NGHTTP2_HEADERS && stream->refused != 0 && !stream->dispatched) {
    session.refuse(frame->hd.stream_id, *stream, 431,
                   fmt::format("the header is larger than {} bytes", session.limits().header_bytes_max));
  } else if ((type == NGHTTP2_HEADERS || type == NGHTTP2_DATA) && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
    session.received(frame->hd.stream_id, *stream);
  } else if (type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    const Router& router = session.connection_.shared().router;
    const std::uint64_t large = router.large_body_max(stream->request.method, stream->request.target);
    if (large > 0) stream->upload = {.bytes_max = large, .large = true};
  }
  return 0;
}

bool Http2Session::count_body(Stream& stream, std::size_t bytes) {
  return connection_.shared().count_body(stream.counted_bytes, bytes);
}

int Http2Session::on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* bytes,
                          std::size_t count, void* data) {
  Http2Session& session = self(data);
  Stream* stream = session.find(id);
  nghttp2_session_consume_connection(session.session_, count);
  if (stream == nullptr || stream->dispatched || stream->refused != 0) {
    nghttp2_session_consume_stream(session.session_, id, count);
    return 0;
  }
  Upload& upload = stream->upload;
  if (upload.writing)
    upload.unread_bytes += count;
  else
    nghttp2_session_consume_stream(session.session_, id, count);
  std::string& body = stream->request.body;
  body.append(reinterpret_cast<const char*>(bytes), count);
  if (body.size() + upload.kept_bytes > upload.bytes_max) {
    session.refuse(id, *stream, 413, fmt::format("the body is larger than {} bytes", upload.bytes_max));
  } else if (!session.count_body(*stream, body.size() + upload.writing_bytes)) {
    session.refuse(id, *stream, 503, "too many requests are being received; try again in a moment");
  } else if (upload.large && body.size() > kBodyHeldBytes) {
    session.keep_body(id, *stream);
  }
  return 0;
}

// To its file. Meanwhile the client may send what its window allows.
void Http2Session::keep_body(std::int32_t id, Stream& stream) {
  Upload& upload = stream.upload;
  if (upload.writing) return;
  if (!upload.file) upload.file = std::make_shared<BodyFile>(connection_.shared().body_room);
  upload.writing = true;
  upload.writing_bytes = stream.request.body.size();
  upload.kept_bytes += upload.writing_bytes;
  stream.progress_ms = now_ms();
  connection_.keep_body(upload.file, std::exchange(stream.request.body, {}), upload.complete, id);
}

void Http2Session::on_kept(std::int32_t id, const Result<void>& kept) {
  Stream* stream = find(id);
  if (stream == nullptr || !stream->upload.writing) return;  // gone, or refused meanwhile
  Upload& upload = stream->upload;
  upload.writing = false;
  upload.writing_bytes = 0;
  nghttp2_session_consume_stream(session_, id, std::exchange(upload.unread_bytes, 0));
  connection_.want_flush();
  if (!kept) return refuse(id, *stream, status_of_lost_body(kept.error()), kept.error().message);
  if (upload.file->is_finished()) {
    stream->request.body_file = upload.file;
    return complete(id, *stream);
  }
  if (upload.complete || stream->request.body.size() > kBodyHeldBytes) keep_body(id, *stream);
}

void Http2Session::received(std::int32_t id, Stream& stream) {
  if (stream.upload.file == nullptr) return complete(id, stream);
  stream.upload.complete = true;
  keep_body(id, stream);
}

void Http2Session::complete(std::int32_t id, Stream& stream) {
  if (stream.dispatched || stream.refused != 0) return;
  count_body(stream, 0);
  stream.dispatched = true;
  active_ms_ = now_ms();
  if (draining_) return reset(id, NGHTTP2_REFUSED_STREAM);
  if (stream.request.headers.count("host") != 1)
    return refuse(id, stream, 400, "a request names exactly one :authority");
  stream.head = stream.request.method == "HEAD";
  auto answer = connection_.dispatch(std::move(stream.request), id);
  if (Stream* still = find(id); still != nullptr) still->answer = answer;
}

void Http2Session::refuse(std::int32_t id, Stream& stream, int status, std::string_view message) {
  count_body(stream, 0);
  stream.refused = status;
  stream.dispatched = true;
  stream.request = Request{};
  stream.upload = {};
  send_whole(id, Response::json(status, Json::object({{"error", Json::object({{"code", "invalid"},
                                                                              {"message", message}})}})));
}

void Http2Session::submit_head(std::int32_t id, int status, const Headers& headers, bool body) {
  const std::string code = std::to_string(status);
  std::vector<nghttp2_nv> fields;
  fields.reserve(headers.all().size() + 1);
  fields.push_back(http2_field(":status", code));
  for (const auto& [name, value] : headers.all()) {
    if (!is_connection_field(to_lower(name)) && value.find_first_of("\r\n") == std::string::npos)
      fields.push_back(http2_field(name, value));
  }
  const nghttp2_data_provider provider{.source = {.ptr = nullptr}, .read_callback = read_body};
  nghttp2_submit_response(session_, id, fields.data(), fields.size(), body ? &provider : nullptr);
  connection_.want_flush();
}

void Http2Session::send_whole(std::int32_t id, Response response) {
  Stream* stream = find(id);
  if (stream == nullptr || stream->head_sent) return;
  stream->head_sent = true;
  stream->ended = true;
  stream->progress_ms = now_ms();
  const bool bodiless = response.status == 204 || response.status == 304;
  if (!bodiless) response.headers.set("content-length", std::to_string(response.content().size()));
  const bool body = !bodiless && !stream->head && !response.content().empty();
  if (body && response.body_file) {
    stream->pending.add_file(std::move(response.body_file));
  } else if (body) {
    stream->pending.add_whole(std::move(response.body));
  }
  submit_head(id, response.status, response.headers, body);
}

void Http2Session::send_head(std::int32_t id, int status, Headers headers) {
  Stream* stream = find(id);
  if (stream == nullptr || stream->head_sent) return;
  stream->head_sent = true;
  submit_head(id, status, headers, !stream->head);
}

void Http2Session::send_piece(std::int32_t id, std::string_view piece) {
  Stream* stream = find(id);
  if (stream == nullptr || stream->head || stream->ended) return;
  if (stream->pending.empty()) stream->progress_ms = now_ms();
  stream->pending.add(piece);
  if (const auto answer = stream->answer.lock()) answer->set_unsent(stream->pending.bytes());
  nghttp2_session_resume_data(session_, id);
  connection_.want_flush();
}

void Http2Session::send_end(std::int32_t id) {
  Stream* stream = find(id);
  if (stream == nullptr) return;
  stream->ended = true;
  nghttp2_session_resume_data(session_, id);
  connection_.want_flush();
}

ssize_t Http2Session::read_body(nghttp2_session*, std::int32_t id, std::uint8_t* to, std::size_t count,
                                std::uint32_t* flags, nghttp2_data_source*, void* data) {
  Http2Session& session = self(data);
  Stream* stream = session.find(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  std::size_t copied = 0;
  std::array<iovec, OutputQueue::kPiecesMax> room;
  while (copied < count && !stream->pending.empty()) {
    const iovec piece = stream->pending.front(room)[0];
    const std::size_t part = std::min(piece.iov_len, count - copied);
    std::copy_n(static_cast<const std::uint8_t*>(piece.iov_base), part, to + copied);
    stream->pending.sent(part);
    copied += part;
  }
  if (copied > 0) {
    stream->progress_ms = session.now_ms();
    if (const auto answer = stream->answer.lock()) answer->set_unsent(stream->pending.bytes());
  }
  if (stream->pending.empty() && stream->ended) {
    *flags |= NGHTTP2_DATA_FLAG_EOF;
  } else if (copied == 0) {
    return NGHTTP2_ERR_DEFERRED;
  }
  return static_cast<ssize_t>(copied);
}

int Http2Session::on_stream_close(nghttp2_session*, std::int32_t id, std::uint32_t, void* data) {
  self(data).gone(id);
  return 0;
}

void Http2Session::gone(std::int32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  count_body(found->second, 0);
  const auto answer = found->second.answer.lock();
  const bool whole = found->second.ended && found->second.pending.empty();
  active_ms_ = now_ms();
  streams_.erase(found);
  if (answer && whole) answer->over();
  if (answer && !whole) answer->mark_gone();
}

void Http2Session::reset(std::int32_t id, std::uint32_t error) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, error);
  connection_.want_flush();
}

void Http2Session::before_flush() {
  if (left_) return;
  while (connection_.output().bytes() < kOutputBytesMax) {
    const std::uint8_t* bytes = nullptr;
    const auto count = nghttp2_session_mem_send(session_, &bytes);
    if (count <= 0) break;
    connection_.output().add(std::string_view(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count)));
  }
  const bool over = nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0;
  if ((over || terminated_ || (draining_ && streams_.empty())) && connection_.output().empty()) leave();
}

// Does not close before the client has: what it sends to a closed socket (windows, as it reads) is answered with a reset, and
// some clients then drop the rest of their answer.
void Http2Session::leave() {
  left_ = true;
  connection_.shutdown_send();
  connection_.timer().arm(kLingerMs);
}

bool Http2Session::spend_idle_frame() {
  const std::int64_t now = now_ms();
  idle_frames_ = std::min(kIdleFramesBurst,
                          idle_frames_ + kIdleFramesPerMs * static_cast<double>(now - std::exchange(idle_frames_ms_, now)));
  idle_frames_ -= 1;
  return idle_frames_ >= 0;
}

// Streams whose client neither sends its request nor reads its answer end here, and so does an idle connection.
void Http2Session::on_timer() {
  if (left_) return connection_.close();
  std::vector<std::int32_t> stalled;
  for (auto& [id, stream] : streams_) {
    const std::int64_t silent_ms = now_ms() - stream.progress_ms;
    const bool receiving = !stream.dispatched && silent_ms >= limits().request_timeout_ms;
    const bool sending = !stream.pending.empty() && silent_ms >= limits().idle_timeout_ms;
    if (receiving || sending) stalled.push_back(id);
  }
  for (const std::int32_t id : stalled) reset(id, NGHTTP2_CANCEL);
  if (streams_.empty() && now_ms() - active_ms_ >= limits().idle_timeout_ms) {
    nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
    terminated_ = true;
    connection_.want_flush();
  }
  arm();
}

void Http2Session::drain() {
  draining_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  connection_.want_flush();
}

void Http2Session::on_closed() {
  std::vector<std::int32_t> ids;
  for (const auto& [id, stream] : streams_) ids.push_back(id);
  for (const std::int32_t id : ids) gone(id);
}

}  // namespace

std::unique_ptr<Session> make_http2_session(Connection& connection) {
  return std::make_unique<Http2Session>(connection);
}

}  // namespace capstan::http

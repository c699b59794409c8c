// How: a streamed answer goes to the exchange event by event; any other is gathered first, so that one that
// breaks off becomes an error and not half a body. A stream's head waits for its first event: a replica that
// dies before it can still be replaced by another one. After that the status is spent: a break is told as an
// event with an error, which OpenAI's clients raise, since a clean end would pass for a short answer.
#include "gateway/relay.h"

#include <algorithm>
#include <cstring>

namespace capstan::gateway {
namespace {

constexpr std::size_t kAnswerBytesMax = 64u << 20;  // of an answer that is not streamed

// The object that starts at text[at] == '{'; strings inside may hold braces.
std::string_view object_at(std::string_view text, std::size_t at) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = at; i < text.size(); ++i) {
    if (quoted) {
      if (text[i] == '\\')
        ++i;
      else if (text[i] == '"')
        quoted = false;
    } else if (text[i] == '"') {
      quoted = true;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return text.substr(at, i - at + 1);
    }
  }
  return {};
}

// The library's own search looks at every byte.
std::size_t position_of(std::string_view text, std::string_view what, std::size_t from) {
  if (from >= text.size()) return std::string_view::npos;
  const void* at = ::memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return at == nullptr ? std::string_view::npos : static_cast<std::size_t>(static_cast<const char*>(at) - text.data());
}

}  // namespace

// In a text of the model the quotes would be escaped, so these find members only.
Usage find_usage(std::string_view text) {
  static constexpr std::string_view kMember = "\"usage\"";
  Usage last;
  for (std::size_t at = position_of(text, kMember, 0); at != std::string_view::npos;
       at = position_of(text, kMember, at + kMember.size())) {
    const std::size_t value = text.find_first_not_of(": \t\r\n", at + kMember.size());
    if (value == std::string_view::npos || text[value] != '{') continue;
    const std::string_view object = object_at(text, value);
    if (object.empty()) continue;
    if (const Usage usage = read_usage(object); usage.exact) last = usage;
  }
  return last;
}

std::string_view find_no_usage(std::string_view event) {
  static constexpr std::string_view kNull = R"(,"usage":null)";
  const std::size_t at = position_of(event, kNull, 0);
  return at == std::string_view::npos ? std::string_view() : event.substr(at, kNull.size());
}

Relay::Relay(Exchange& exchange, http::ResponseWriterPtr writer, std::string request_id)
    : exchange_(exchange),
      writer_(std::move(writer)),
      request_id_(std::move(request_id)),
      started_ms_(steady_now_ms()) {}

void Relay::on_head(const http::Response& head) {
  replica_status_ = head.status;
  const std::string type = head.headers.get("content-type");
  streaming_ = head.status == 200 && type.starts_with("text/event-stream");
  if (streaming_) return;
  whole_ = {head.status, {{"content-type", type}}, {}};
  for (const char* name : {"retry-after", "retry-after-ms", "x-should-retry", "cache-control"}) {
    if (const std::string* value = head.headers.find(name)) whole_.headers.set(name, *value);
  }
}

bool Relay::on_piece(std::string_view piece) {
  if (first_byte_ms_ == 0) first_byte_ms_ = steady_now_ms();
  if (streaming_) {
    const bool small = splitter_.feed(
        piece, [this](std::string_view raw, std::string_view data) { on_event(raw, data); });
    if (!small) broken_ = fmt::format("one of its events is larger than {} bytes", kEventBytesMax);
    return small && !writer_->client_gone();
  }
  if (whole_.body.size() + piece.size() > kAnswerBytesMax) {
    broken_ = fmt::format("it is larger than {} bytes", kAnswerBytesMax);
    return false;
  }
  whole_.body += piece;
  return !writer_->client_gone();
}

void Relay::on_event(std::string_view raw, std::string_view data) {
  if (!std::exchange(stream_begun_, true)) exchange_.on_stream_begin(*this);
  // Most engines write it last; then nothing needs to be searched.
  std::string_view none;
  if (constexpr std::string_view kLast = ",\"usage\":null}\n\n"; raw.ends_with(kLast))
    none = raw.substr(raw.size() - kLast.size(), kLast.size() - 3);
  const Usage found = none.empty() ? find_usage(data) : Usage{};
  if (found.exact) {
    usage_ = found;
  } else if (none.empty()) {
    none = find_no_usage(raw);
  }
  done_ = done_ || found.exact || data == "[DONE]";
  if (!data.empty() && !done_) ++events_;
  if (permit_ != nullptr) permit_->progress(events_);
  exchange_.on_event({raw, data, found.exact ? &usage_ : nullptr, none}, *this);
}

void Relay::on_end() {
  if (!streaming_) {
    usage_ = replica_status_ == 200 ? find_usage(whole_.body) : Usage{};
    return exchange_.on_answer(std::move(whole_), usage_.exact ? &usage_ : nullptr, *this);
  }
  if (!stream_begun_) exchange_.on_stream_begin(*this);
  exchange_.on_stream_end(usage(0), *this);
}

void Relay::break_off(const std::string& why) {
  const ApiError error{.status = 502,
                       .message = "the replica broke off its answer: " + why,
                       .type = "server_error",
                       .code = "replica_lost"};
  if (!stream_begun_) return refuse(error);
  exchange_.on_break(error, *this);
}

void Relay::refuse(const ApiError& error) { respond(exchange_.error(error)); }

void Relay::respond(http::Response response) {
  if (begun()) return;
  status_ = response.status;
  response.headers.set("x-request-id", request_id_);
  if (permit_ != nullptr) permit_->add_headers(response.headers);
  writer_->respond(std::move(response));
}

void Relay::start(int status, http::Headers headers) {
  if (begun()) return;
  status_ = status;
  headers.set("x-request-id", request_id_);
  if (permit_ != nullptr) permit_->add_headers(headers);
  writer_->start(status, std::move(headers));
}

void Relay::write(std::string_view piece) { writer_->write(piece); }
void Relay::finish() { writer_->finish(); }

Usage Relay::usage(std::int64_t prompt_tokens_estimate) const {
  if (usage_.exact) return usage_;
  Usage estimate;
  if (streaming_ || first_byte_ms_ != 0) estimate.prompt_tokens = prompt_tokens_estimate;
  estimate.completion_tokens = events_;
  return replica_status_ == 200 ? estimate : Usage{};
}

}  // namespace capstan::gateway

// How: a streamed answer goes to the client piece by piece; any other is gathered first, so that one that
// breaks off becomes an error and not half a body. After a stream's first byte the status is spent: a break
// is told as an event with an error, which OpenAI's clients raise, since a clean end would pass for a short
// answer.
#include "gateway/relay.h"

#include <algorithm>
#include <chrono>

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

}  // namespace

std::int64_t steady_now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void UsageTail::feed(std::string_view piece) {
  tail_.append(piece.substr(piece.size() - std::min(piece.size(), kUsageTailBytes)));
  if (tail_.size() > 2 * kUsageTailBytes) tail_.erase(0, tail_.size() - kUsageTailBytes);
}

Json UsageTail::usage() const {
  // In a text of the model the quotes would be escaped, so this finds the member only.
  static constexpr std::string_view kMember = "\"usage\"";
  for (std::size_t at = tail_.rfind(kMember); at != std::string::npos;
       at = at == 0 ? std::string::npos : tail_.rfind(kMember, at - 1)) {
    const std::size_t value = tail_.find_first_not_of(": \t", at + kMember.size());
    if (value == std::string::npos || tail_[value] != '{') continue;
    if (auto usage = Json::parse(object_at(tail_, value)); usage && usage->is_object())
      return *std::move(usage);
  }
  return {};
}

Relay::Relay(const http::Request& request, http::ResponseWriterPtr writer, std::string request_id)
    : request_(request),
      writer_(std::move(writer)),
      request_id_(std::move(request_id)),
      started_ms_(steady_now_ms()) {}

http::Request Relay::upstream() const {
  http::Request out{.method = request_.method, .target = request_.target, .body = request_.body};
  if (out.target.starts_with("/openai/v1")) out.target.erase(0, std::string_view("/openai").size());
  for (const char* name : {"content-type", "accept", "traceparent", "tracestate"}) {
    if (const std::string* value = request_.headers.find(name)) out.headers.set(name, *value);
  }
  out.headers.set("x-request-id", request_id_);
  return out;
}

bool Relay::on_head(const http::Response& head, bool may_turn_away) {
  const bool busy = head.status == 429 || head.status == 502 || head.status == 503;
  turned_away_ = busy && may_turn_away ? head.status : 0;
  if (turned_away_ != 0) return false;
  status_ = head.status;
  first_byte_ms_ = steady_now_ms();
  const std::string type = head.headers.get("content-type");
  http::Headers headers{{"content-type", type}, {"x-request-id", request_id_}};
  for (const char* name : {"retry-after", "retry-after-ms", "x-should-retry", "cache-control"}) {
    if (const std::string* value = head.headers.find(name)) headers.set(name, *value);
  }
  streaming_ = type.starts_with("text/event-stream");
  if (streaming_) {
    writer_->start(status_, std::move(headers));
  } else {
    whole_ = {status_, std::move(headers), {}};
  }
  return true;
}

bool Relay::on_piece(std::string_view piece) {
  if (streaming_) {
    tail_.feed(piece);
    return writer_->write(piece);
  }
  too_large_ = whole_.body.size() + piece.size() > kAnswerBytesMax;
  if (too_large_) return false;
  whole_.body += piece;
  return !writer_->client_gone();
}

void Relay::finish() {
  if (too_large_) return break_off(fmt::format("it is larger than {} bytes", kAnswerBytesMax));
  if (streaming_) return writer_->finish();
  writer_->respond(whole_);
}

void Relay::break_off(const std::string& why) {
  const OpenAiError error{.status = 502,
                          .message = "the replica broke off its answer: " + why,
                          .type = "server_error",
                          .code = "replica_lost"};
  if (!streaming_) return refuse(error);
  // The empty line ends an event that was cut in the middle.
  if (!tail_.between_events()) writer_->write("\n\n");
  writer_->write(http::sse_event(to_json(error).dump()));
  writer_->finish();
}

void Relay::refuse(const OpenAiError& error) {
  http::Response response = to_response(error);
  response.headers.set("x-request-id", request_id_);
  status_ = error.status;
  writer_->respond(std::move(response));
}

Json Relay::usage() const {
  if (streaming_) return tail_.usage();
  if (status_ != 200) return {};
  const auto body = Json::parse(whole_.body);
  const Json* usage = body ? body->find("usage") : nullptr;
  return usage != nullptr ? *usage : Json();
}

}  // namespace capstan::gateway

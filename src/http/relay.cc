// How it works: the relay holds itself until its answer has ended or the client is gone.
#include "http/relay.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace capstan::http {
namespace {

constexpr std::size_t kWholeBytesMax = 1u << 20;  // answers up to this are sent in one piece
constexpr std::size_t kUnsentBytesMax = 1u << 20;
constexpr std::array<std::string_view, 9> kOfConnection{"connection", "keep-alive",       "transfer-encoding",
                                                        "upgrade",    "content-length",   "host",
                                                        "te",         "proxy-connection", "expect"};

class Relay final : public CallSink, public std::enable_shared_from_this<Relay> {
 public:
  Relay(std::string url, Request request, ResponseWriterPtr writer, RelayOptions options)
      : url_(std::move(url)), request_(std::move(request)), writer_(std::move(writer)), options_(std::move(options)) {}

  void start(AsyncClient& client) {
    self_ = shared_from_this();
    call_ = client.start(url_, request_, request_.content(),
                         {.silence_timeout_ms = options_.silence_timeout_ms}, *this);
    writer_->on_client_gone([weak = weak_from_this()] {
      if (const auto relay = weak.lock()) relay->leave();
    });
  }

  void on_head(Response& head) override {
    const auto length = parse_int(head.headers.get("content-length"));
    if (options_.on_head) {
      if (const auto fits = options_.on_head(head); !fits) {
        const auto keep = self_;
        writer_->respond(options_.unavailable(fits.error().message));
        return leave();
      }
    }
    status_ = head.status;
    whole_ = status_ == 204 || status_ == 304 || (length && *length <= static_cast<std::int64_t>(kWholeBytesMax));
    headers_ = end_to_end(head.headers);
    if (!whole_) writer_->start(status_, headers_);
  }
  void on_piece(std::string_view piece) override {
    if (whole_) {
      answer_ += piece;
      return;
    }
    writer_->write(piece);
    if (writer_->unsent_bytes() < kUnsentBytesMax) return;
    call_->pause();
    writer_->when_sent([weak = weak_from_this()] {
      const auto relay = weak.lock();
      if (relay && relay->call_) relay->call_->resume();
    });
  }
  void on_end(Result<void> result) override {
    const auto keep = self_;
    if (status_ == 0) {
      writer_->respond(options_.unavailable(fmt::format("{} does not answer: {}", options_.who, result.error().message)));
    } else if (whole_ && result) {
      writer_->respond({.status = status_, .headers = headers_, .body = std::move(answer_)});
    } else if (whole_) {
      writer_->respond(options_.unavailable(fmt::format("{} broke off: {}", options_.who, result.error().message)));
    } else if (result) {
      writer_->finish();
    }
    leave();
  }

 private:
  void leave() {
    const auto keep = std::exchange(self_, nullptr);
    call_.reset();
  }

  const std::string url_;
  const Request request_;
  const ResponseWriterPtr writer_;
  const RelayOptions options_;
  std::unique_ptr<AsyncCall> call_;
  std::shared_ptr<Relay> self_;  // shared with nobody: its own life, until the end
  int status_ = 0;
  bool whole_ = false;
  Headers headers_;
  std::string answer_;
};

}  // namespace

Headers end_to_end(const Headers& headers) {
  Headers out;
  for (const auto& [name, value] : headers.all()) {
    const std::string lower = to_lower(name);
    if (std::ranges::find(kOfConnection, lower) == kOfConnection.end() && !lower.starts_with(":")) out.add(name, value);
  }
  return out;
}

void relay(AsyncClient& client, std::string url, Request request, const ResponseWriterPtr& writer, RelayOptions options) {
  if (!options.unavailable)
    options.unavailable = [](const std::string& why) { return Response::text(503, why + "\n"); };
  std::make_shared<Relay>(std::move(url), std::move(request), writer, std::move(options))->start(client);
}

}  // namespace capstan::http

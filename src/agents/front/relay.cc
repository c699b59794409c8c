// How it works: the relay holds itself until its answer has ended or the client is gone.
#include "agents/front/relay.h"

#include <algorithm>
#include <array>

#include "agents/front/front.h"
#include "agents/sessions/owner.h"
#include "base/file.h"
#include "base/text.h"

namespace capstan::agents {
namespace {

constexpr std::size_t kWholeBytesMax = 1u << 20;  // answers up to this are sent in one piece
constexpr std::size_t kUnsentBytesMax = 1u << 20;
constexpr int kSilenceMs = 24 * 3600 * 1000;  // a command may say nothing for long; a dead host closes its connection
// Of one connection, not of the message; and what only we may say.
constexpr std::array<std::string_view, 9> kOurs{"connection", "keep-alive",        "transfer-encoding",
                                                "upgrade",    "content-length",    "host",
                                                "te",         "proxy-connection",  "expect"};

http::Headers passed_on(const http::Headers& from) {
  http::Headers out;
  for (const auto& [name, value] : from.all()) {
    const std::string lower = to_lower(name);
    // Keys stay here: the host is told whose request it is. What is left in Authorization names a user in the sandbox.
    if (lower == "x-api-key" || (lower == "authorization" && !value.starts_with("Basic "))) continue;
    if (std::ranges::find(kOurs, lower) == kOurs.end() && !lower.starts_with("x-capstan-") && !lower.starts_with(":"))
      out.add(name, value);
  }
  return out;
}

http::Response unavailable(std::string_view why) {
  return http::Response::json(503, Json::object({{"code", 503}, {"message", why}}));
}

class Relay final : public http::CallSink, public std::enable_shared_from_this<Relay> {
 public:
  Relay(HostAddress::Host host, http::Request request, http::ResponseWriterPtr writer)
      : host_(std::move(host)), request_(std::move(request)), writer_(std::move(writer)) {}

  void start(http::AsyncClient& client) {
    self_ = shared_from_this();
    body_ = std::exchange(request_.body, {});
    call_ = client.start(host_.url, request_, body_, {.silence_timeout_ms = kSilenceMs}, *this);
    writer_->on_client_gone([weak = weak_from_this()] {
      if (const auto relay = weak.lock()) relay->leave();
    });
  }

  void on_head(http::Response& head) override {
    status_ = head.status;
    const auto length = parse_int(head.headers.get("content-length"));
    whole_ = status_ == 204 || status_ == 304 || (length && *length <= static_cast<std::int64_t>(kWholeBytesMax));
    headers_ = passed_on(head.headers);
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
      writer_->respond(unavailable("the sandboxes' host does not answer: " + result.error().message));
    } else if (whole_ && result) {
      writer_->respond({.status = status_, .headers = headers_, .body = std::move(answer_)});
    } else if (whole_) {
      writer_->respond(unavailable("the sandboxes' host broke off: " + result.error().message));
    } else if (result) {
      writer_->finish();
    }  // else: a stream that broke off ends like that for the client, too
    leave();
  }

 private:
  void leave() {
    const auto keep = std::exchange(self_, nullptr);
    call_.reset();
  }

  const HostAddress::Host host_;
  http::Request request_;
  std::string body_;
  const http::ResponseWriterPtr writer_;
  std::unique_ptr<http::AsyncCall> call_;
  std::shared_ptr<Relay> self_;  // shared with nobody: its own life, until the end
  int status_ = 0;
  bool whole_ = false;
  http::Headers headers_;
  std::string answer_;
};

}  // namespace

Result<HostAddress::Host> HostAddress::now() const {
  const auto absent = [] { return fail(Code::kUnavailable, "the sandboxes' host has not started yet; try again in a moment"); };
  std::error_code error;
  const auto changed = std::filesystem::last_write_time(file_, error);
  const std::lock_guard lock(mutex_);
  if (error) return absent();
  if (known_ && changed == changed_) return *known_;
  const auto text = read_file(file_, 64 << 10);
  const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "no address");
  if (!json) return absent();
  known_ = Host{fmt::format("http://127.0.0.1:{}", json->get_int("port").value_or(0)),
                json->get_string("token").value_or(""), json->get_string("refusal").value_or("")};
  changed_ = changed;
  return *known_;
}

void relay(http::AsyncClient& client, const HostAddress& address, http::Request request, const std::string& owner,
           const http::ResponseWriterPtr& writer) {
  auto host = address.now();
  if (!host) return writer->respond(unavailable(host.error().message));
  http::Request passed{.method = request.method,
                       .target = request.target,
                       .headers = passed_on(request.headers),
                       .body = std::move(request.body)};
  passed.headers.set(kHostTokenHeader, host->token);
  if (!owner.empty()) passed.headers.set(kOwnerHeader, owner);
  std::make_shared<Relay>(std::move(*host), std::move(passed), writer)->start(client);
}

}  // namespace capstan::agents

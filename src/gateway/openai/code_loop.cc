// How: a state machine on the event loop. ask() makes the next turn's body of the first one's and of all that was said
// since; Turn is the gateway's client for it and hands on its pieces; run_next() takes the calls of the turn one by one.
// Nothing is sent before the first turn's answer has begun, so that its refusals are plain errors.
#include "gateway/openai/code_loop.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "gateway/event_splitter.h"
#include "gateway/openai/responses_error.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {
namespace {

constexpr int kAgainMax = 10;  // a later turn that lacks room is asked again, after what its refusal says
constexpr std::int64_t kAgainMs = 250, kAgainMsMax = 10'000;

std::atomic<int> loops_under_way{0};

class Loop;

// One model turn, as the gateway sees its client.
class Turn final : public http::ResponseWriter {
 public:
  Turn(std::weak_ptr<Loop> loop, http::ResponseWriterPtr client) : loop_(std::move(loop)), client_(std::move(client)) {}
  void respond(http::Response response) override;
  void start(int status, http::Headers headers) override;
  bool write(std::string_view piece) override;
  void finish() override;
  bool client_gone() const override { return gone_; }
  void on_client_gone(std::function<void()> callback) override {
    if (gone_) return callback();
    on_gone_ = std::move(callback);
  }
  std::size_t unsent_bytes() const override { return client_->unsent_bytes(); }
  void when_sent(std::function<void()> callback) override { client_->when_sent(std::move(callback)); }
  // Its work is ended; nothing more comes.
  void leave() {
    if (std::exchange(gone_, true)) return;
    if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
  }

 private:
  const std::weak_ptr<Loop> loop_;
  const http::ResponseWriterPtr client_;
  EventSplitter splitter_;
  std::function<void()> on_gone_;
  bool gone_ = false;
};

class Loop final : public std::enable_shared_from_this<Loop> {
 public:
  Loop(CodeLoopParts parts, CodeLoopTask task, http::ResponseWriterPtr writer, const http::Request& request)
      : parts_(std::move(parts)), task_(std::move(task)), writer_(std::move(writer)) {
    const std::string given = request.headers.get("x-request-id");
    id_ = given.empty() || given.size() > kIdBytesMax ? "req_" + random_hex(12) : given;
    trace_ = trace_of(request);
    const std::int64_t asked = task_.call.tool_calls_max;
    calls_max_ = asked == 0 ? kCodeCallsMax : std::min(asked, kCodeCallsMax);
  }
  ~Loop() { --loops_under_way; }

  void begin(http::EventLoop& loop) {
    self_ = shared_from_this();
    timer_ = std::make_unique<http::EventLoop::Timer>(loop, [weak = weak_from_this(), &loop] {
      // Not from within the timer, which goes with the loop.
      loop.post([weak] {
        if (const auto it = weak.lock()) it->time_is_over();
      });
    });
    timer_->arm(parts_.time_ms);
    again_ = std::make_unique<http::EventLoop::Timer>(loop, [weak = weak_from_this(), &loop] {
      loop.post([weak] {
        if (const auto it = weak.lock(); it && it->self_ && !it->turn_) it->ask();
      });
    });
    writer_->on_client_gone([weak = weak_from_this()] {
      if (const auto it = weak.lock()) it->end();
    });
    if (self_) ask();
  }

  // Of the turn under way:
  void turn_begins(const http::Headers& headers);
  void turn_says(std::string_view data);
  void turn_answers(http::Response response);
  void turn_ended();
  void turn_breaks(const ApiError& error);

 private:
  static constexpr std::size_t kIdBytesMax = 100;  // with a turn's number behind it, still an id for the gateway

  void ask();
  Json next_body() const;
  void run_next();
  void ran(std::size_t item, Result<CodeRunner::Outcome> outcome);
  void time_is_over();
  void stop(std::string_view reason);
  void fail(const ApiError& error);
  void refuse(http::Response refusal);
  void complete(const ResponsesAnswer::Events& events);
  void send(const ResponsesAnswer::Events& events);
  void end();

  const CodeLoopParts parts_;
  CodeLoopTask task_;
  const http::ResponseWriterPtr writer_;
  std::string id_;
  http::Headers trace_, head_;  // head_: what the first turn's answer adds to ours
  std::shared_ptr<Loop> self_;  // until the end
  std::unique_ptr<http::EventLoop::Timer> timer_, again_;
  std::shared_ptr<Turn> turn_;  // shared with the gateway
  std::unique_ptr<CodeRunner::Run> run_;
  std::vector<ResponsesAnswer::Code> codes_;  // of the last turn, still to run
  int turns_ = 0, asked_ = 0, asked_again_ = 0;  // asked_again_: of the turn under way
  std::int64_t calls_ = 0, calls_max_ = 0;
  std::size_t image_bytes_ = 0;
  bool begun_ = false;     // the client's stream has its head
  bool progress_ = false;  // the last turn's calls ran, one at least
};

void Turn::respond(http::Response response) {
  if (const auto loop = loop_.lock(); loop && !gone_) loop->turn_answers(std::move(response));
}
void Turn::start(int, http::Headers headers) {
  if (const auto loop = loop_.lock(); loop && !gone_) loop->turn_begins(headers);
}
bool Turn::write(std::string_view piece) {
  const auto loop = loop_.lock();
  if (!loop || gone_) return false;
  const bool small = splitter_.feed(piece, [&](std::string_view, std::string_view data) {
    if (!gone_ && !data.empty() && data != "[DONE]") loop->turn_says(data);
  });
  if (!small && !gone_) loop->turn_breaks({.status = 502, .message = "an event of the replica is too large"});
  return !gone_;
}
void Turn::finish() {
  if (const auto loop = loop_.lock(); loop && !gone_) loop->turn_ended();
}

Json Loop::next_body() const {
  Json body = task_.chat;
  Json& messages = *body.find("messages");
  static const ItemSources kNone{[](const std::string&) { return std::nullopt; },
                                 [](const std::string&) { return std::nullopt; }};
  (void)add_items(task_.answer.items(), kNone, messages);  // our own items are good
  if (const auto most = body.get_int("max_completion_tokens"))
    body["max_completion_tokens"] = *most - task_.answer.usage().output;
  if (turns_ > 0) body["tool_choice"] = calls_ < calls_max_ && body.get_string("tool_choice") != "none" ? "auto" : "none";
  return body;
}

void Loop::ask() {
  const Json body = next_body();
  if (const auto left = body.get_int("max_completion_tokens"); left && *left < 1) return stop("max_output_tokens");
  http::Request request{.method = "POST",
                        .target = "/v1/chat/completions",
                        .headers = {{"content-type", "application/json"}},
                        .body = body.dump()};
  for (const auto& [name, value] : trace_.all()) request.headers.add(name, value);
  request.headers.set("x-request-id", asked_ == 0 ? id_ : fmt::format("{}.{}", id_, asked_ + 1));
  ++asked_;
  ++turns_;
  progress_ = false;
  turn_ = std::make_shared<Turn>(weak_from_this(), writer_);
  if (const auto asked = parts_.gateway.perform(std::move(request), task_.caller, turn_); !asked)
    fail({.status = 503, .message = asked.error().message, .type = "server_error"});
}

void Loop::turn_begins(const http::Headers& headers) {
  if (std::exchange(begun_, true)) return;
  http::Headers head{{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}, {"x-request-id", id_}};
  for (const auto& [name, value] : headers.all()) {
    if (name.starts_with("x-ratelimit-")) head.set(name, value);
  }
  writer_->start(200, std::move(head));
  send(task_.answer.begin());
}

void Loop::turn_says(std::string_view data) {
  const auto delta = read_chat_event(data);
  if (!delta) return turn_breaks(delta.error());
  send(task_.answer.push(*delta));
}

void Loop::turn_answers(http::Response response) {
  if (turns_ == 1) {
    for (const auto& [name, value] : response.headers.all()) {
      if (name.starts_with("x-ratelimit-")) head_.set(name, value);
    }
  }
  if (response.status == 200) {
    const auto delta = read_chat_completion(response.body);
    if (!delta) return turn_breaks(delta.error());
    if (task_.call.streams()) turn_begins(head_);
    send(task_.answer.push(*delta));
    return turn_ended();
  }
  if (turns_ > 1 && lacks_room(response) && asked_again_ < kAgainMax) {
    const std::int64_t wait_ms = parse_int(response.headers.get("retry-after-ms")).value_or(kAgainMs << asked_again_);
    ++asked_again_;
    --turns_;
    turn_.reset();
    return again_->arm(std::clamp<std::int64_t>(wait_ms, 1, kAgainMsMax));
  }
  const ApiError error = in_responses_terms(read_error(response.status, response.body));
  if (begun_) return turn_breaks(error);
  const auto keep = self_;
  task_.answer.fail(error);
  refuse(in_responses_terms(std::move(response)));
}

void Loop::turn_breaks(const ApiError& error) {
  const auto keep = self_;
  if (turn_) turn_->leave();
  fail(error);
}

void Loop::turn_ended() {
  turn_.reset();
  asked_again_ = 0;
  if (!task_.answer.ended())
    return fail({.status = 502, .message = "the replica ended its answer without saying why", .type = "server_error"});
  send(task_.answer.end_turn());
  codes_ = task_.answer.take_codes();
  if (codes_.empty()) return complete(task_.answer.finish());
  run_next();
}

// The turn's next piece of code; behind the last, the next turn.
void Loop::run_next() {
  if (codes_.empty()) {
    if (task_.answer.calls_client()) return complete(task_.answer.finish());
    if (!progress_) return stop("max_tool_calls");
    return ask();
  }
  const ResponsesAnswer::Code code = std::move(codes_.front());
  codes_.erase(codes_.begin());
  if (calls_ == calls_max_) {
    send(task_.answer.code_ignored(code.item));
    return run_next();
  }
  ++calls_;
  progress_ = true;
  send(task_.answer.code_begins(code.item));
  run_ = parts_.runner.run({.caller = task_.caller,
                            .container = task_.call.container,
                            .files = task_.files,
                            .code = code.text,
                            .time_ms = std::min(kCodeTimeMs, parts_.time_ms)},
                           [this, item = code.item](Result<CodeRunner::Outcome> outcome) {
                             const auto keep = self_;
                             ran(item, std::move(outcome));
                           });
}

void Loop::ran(std::size_t item, Result<CodeRunner::Outcome> outcome) {
  run_.reset();
  if (!outcome) {
    send(task_.answer.code_ignored(item));
    return fail({.status = outcome.error().code == Code::kExhausted ? 429 : 503,
                 .message = fmt::format("the code interpreter cannot run: {}", outcome.error().message),
                 .type = "server_error",
                 .code = "container_unavailable"});
  }
  std::size_t bytes = image_bytes_;
  for (const std::string& url : outcome->images) bytes += url.size();
  if (bytes <= kLoopImageBytesMax) {
    image_bytes_ = bytes;
  } else {
    outcome->logs += fmt::format("[images left out: {}; the response has too many bytes of them]\n", outcome->images.size());
    outcome->images.clear();
  }
  send(task_.answer.code_ran(item, outcome->logs, outcome->finished, outcome->images));
  run_next();
}

void Loop::time_is_over() {
  if (!self_) return;
  if (turn_) turn_->leave();
  run_.reset();
  stop("max_time");
}

void Loop::stop(std::string_view reason) { complete(task_.answer.stop(std::string(reason))); }

void Loop::fail(const ApiError& error) {
  const auto events = task_.answer.fail(error);
  if (begun_) return complete(events);
  refuse(to_response(error));
}

void Loop::refuse(http::Response refusal) {
  if (turns_ > 1 && parts_.keep) parts_.keep(task_.answer.stored());  // code has run
  refusal.headers.set("x-request-id", id_);
  writer_->respond(std::move(refusal));
  end();
}

// The response's last events, or the whole of it. Kept before the client knows that it has ended.
void Loop::complete(const ResponsesAnswer::Events& events) {
  if (parts_.keep) parts_.keep(task_.answer.stored());
  if (task_.call.streams()) {
    turn_begins(head_);
    send(events);
    writer_->finish();
  } else {
    http::Response whole = http::Response::json(200, task_.answer.response());
    for (const auto& [name, value] : head_.all()) whole.headers.set(name, value);
    whole.headers.set("x-request-id", id_);
    writer_->respond(std::move(whole));
  }
  end();
}

void Loop::send(const ResponsesAnswer::Events& events) {
  if (!task_.call.streams()) return;
  for (const Json& event : events) writer_->write(http::sse_event(event.dump(), *event.get_string("type")));
}

void Loop::end() {
  const auto keep = std::exchange(self_, nullptr);
  if (!keep) return;
  if (const auto turn = std::exchange(turn_, nullptr)) turn->leave();
  run_.reset();
  codes_.clear();
  timer_.reset();
  again_.reset();
}

}  // namespace

Result<void> CodeLoop::start(CodeLoopParts parts, CodeLoopTask task, const http::ResponseWriterPtr& writer,
                             const http::Request& request) {
  http::EventLoop* loop = parts.gateway.loop();
  if (loop == nullptr) return fail(Code::kUnavailable, "the server does not run");
  const auto made = std::make_shared<Loop>(std::move(parts), std::move(task), writer, request);  // shared: see self_
  if (++loops_under_way > kLoopsMax)
    return fail(Code::kExhausted, "{} responses with tools are under way, which is the limit; try again in a moment",
                kLoopsMax);
  loop->post([made, loop] { made->begin(*loop); });
  return {};
}

}  // namespace capstan::gateway::openai

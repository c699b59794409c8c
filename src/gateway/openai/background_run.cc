#include "gateway/openai/background_run.h"

#include "base/steady_time.h"
#include "gateway/openai/responses_error.h"
#include "gateway/openai_error.h"

namespace capstan::gateway::openai {
namespace {

constexpr std::size_t kUnsentMax = 1u << 20;  // of a follower, before it waits for its client
constexpr std::size_t kSliceBytes = 256u << 10;

}  // namespace

void BackgroundRun::respond(http::Response response) {
  const auto made = response.status == 200 ? Json::parse(response.body) : Json();
  if (made && made->get_string("object") == "response") {
    tell(answer_.begin());
    tell({Json::object({{"type", "response." + made->get_string("status").value_or("completed")},
                        {"sequence_number", answer_.next_number()},
                        {"response", *made}})});
  } else {
    tell(answer_.fail(in_responses_terms(read_error(response.status, response.body))));
    keep_(answer_.response());
  }
  end();
}

bool BackgroundRun::write(std::string_view piece) {
  if (left_) return false;
  if (lost_ || !streamed_) return true;
  if (text_.size() + piece.size() > kEventBytesMax) {
    lost_ = true;
    text_ = {};
    for (const Follower& follower : followers_) follower.writer->finish();
    followers_.clear();
    return true;
  }
  text_ += piece;
  pump_all();
  return true;
}

void BackgroundRun::on_client_gone(std::function<void()> callback) {
  if (left_) return callback();
  on_gone_ = std::move(callback);
}

void BackgroundRun::tell(const ResponsesAnswer::Events& events) {
  for (const Json& event : events) (void)write(http::sse_event(event.dump(), *event.get_string("type")));
}

void BackgroundRun::cancel() {
  if (ended_ms_ != 0) return;
  leave();
  answer_.cancel();
  keep_(answer_.response());
  end();
}

void BackgroundRun::leave() {
  if (std::exchange(left_, true)) return;
  if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
}

bool BackgroundRun::follow(std::int64_t after, http::Headers head, const http::ResponseWriterPtr& writer) {
  if (lost_) return false;
  std::size_t begin = 0;
  for (std::int64_t number = 0; number <= after; ++number) {
    const std::size_t end = text_.find("\n\n", begin);
    if (end == std::string::npos) return false;
    begin = end + 2;
  }
  head.set("content-type", "text/event-stream");
  head.set("cache-control", "no-cache");
  writer->start(200, std::move(head));
  followers_.push_back({writer, begin});
  pump_all();
  return true;
}

void BackgroundRun::pump(Follower& follower) {
  while (follower.told < text_.size()) {
    if (follower.waits) return;
    if (follower.writer->unsent_bytes() > kUnsentMax) {
      follower.waits = true;
      follower.writer->when_sent([weak = weak_from_this(), writer = follower.writer.get()] {
        const auto run = weak.lock();
        if (!run) return;
        for (Follower& one : run->followers_) {
          if (one.writer.get() == writer) one.waits = false;
        }
        run->pump_all();
      });
      continue;
    }
    const std::string_view slice = std::string_view(text_).substr(follower.told, kSliceBytes);
    follower.told += slice.size();
    (void)follower.writer->write(slice);
  }
}

void BackgroundRun::pump_all() {
  std::erase_if(followers_, [this](Follower& follower) {
    if (follower.writer->client_gone()) return true;
    pump(follower);
    if (ended_ms_ == 0 || follower.told < text_.size()) return false;
    follower.writer->finish();
    return true;
  });
}

void BackgroundRun::end() {
  if (ended_ms_ == 0) ended_ms_ = steady_now_ms();
  on_gone_ = nullptr;
  pump_all();
}

}  // namespace capstan::gateway::openai

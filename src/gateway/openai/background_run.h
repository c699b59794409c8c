// One response in the making, as the gateway sees its client: keeps its events for those who follow it. Private to this folder.
//
// Threads: of the event loop, but for the constructor and ended_ms().
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "gateway/openai/responses_answer.h"
#include "http/server.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kEventBytesMax = 16u << 20;

class BackgroundRun final : public http::ResponseWriter, public std::enable_shared_from_this<BackgroundRun> {
 public:
  using Keep = std::function<void(const Json& response)>;
  // `answer`: as it was before the first event of its request's; for what ends it without its request. `streamed`: its
  // client asked for events.
  BackgroundRun(ResponsesAnswer answer, Keep keep, bool streamed)
      : answer_(std::move(answer)), keep_(std::move(keep)), streamed_(streamed) {}

  // Of its request:
  void respond(http::Response response) override;  // a refusal, or the whole answer of a replica that does not stream
  void start(int, http::Headers) override {}
  bool write(std::string_view piece) override;
  void finish() override { end(); }
  bool client_gone() const override { return left_; }
  void on_client_gone(std::function<void()> callback) override;

  void tell(const ResponsesAnswer::Events& events);
  void cancel();  // the response becomes "cancelled", unless it has ended
  void leave();   // its request ends, and nothing is told any more
  // Sends the events behind number `after`, and those to come. False if they are not there any more, or never were.
  bool follow(std::int64_t after, http::Headers head, const http::ResponseWriterPtr& writer);
  bool is_streamed() const { return streamed_; }
  std::int64_t ended_ms() const { return ended_ms_; }  // steady; 0: it has not
  std::size_t bytes() const { return text_.size(); }   // of its events; of any thread once it has ended

 private:
  struct Follower {
    http::ResponseWriterPtr writer;
    std::size_t told = 0;  // of text_
    bool waits = false;    // for its client
  };
  void pump(Follower& follower);
  void pump_all();
  void end();

  ResponsesAnswer answer_;
  const Keep keep_;
  const bool streamed_;
  std::string text_;   // all events, as they are sent
  bool lost_ = false;  // there were too many
  bool left_ = false;
  std::function<void()> on_gone_;
  std::list<Follower> followers_;
  std::atomic<std::int64_t> ended_ms_{0};
};

}  // namespace capstan::gateway::openai

// Finds places off the event loop, for requests that are on it.
//
//   resolver.find("workbench", owner, loop, [](Result<Place> place) { … });   // on the loop; at once if it is known
//
// What was found holds until the places' version changes. Threads: find() on the loop; one thread of its own asks.
// Bounds: kWaitingMax requests wait, kKnownMax answers are kept.  Failure: the places'; kExhausted, kUnavailable after stop().
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "agents/front/places.h"
#include "http/event_loop.h"

namespace capstan::agents {

class Resolver {
 public:
  static constexpr std::size_t kWaitingMax = 10'000, kKnownMax = 10'000;
  using Then = std::function<void(const Result<Place>&)>;

  explicit Resolver(Places& places);
  ~Resolver() { stop(); }
  void find(const std::string& sandbox, const std::string& owner, http::EventLoop& loop, Then then);
  void stop();  // before the loop goes

 private:
  struct Question {
    std::string sandbox, owner;
    http::EventLoop* loop;
    Then then;
  };
  void answer(std::stop_token stop);

  Places& places_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool stopped_ = false;
  std::deque<Question> waiting_;
  std::map<std::string, Place> known_;  // as of known_version_
  std::uint64_t known_version_ = 0;
  std::jthread thread_;
};

}  // namespace capstan::agents

// Responses that are made in the background: begun, followed, cancelled.
//
//   BackgroundResponses background(gateway, state);
//   background.begin(request, caller, writer);            // "queued" at once, or the events as they come
//   background.follow(owner, id, after, writer);          // the events behind a number, then those to come
//   background.cancel(owner, id);
//
// A run is the client of its own request, which goes the whole way of any other (limits, routing, metering). Its events are kept
// while it lasts and kEventsKeptMs longer, so a client that lost its stream goes on where it was; its response is stored as
// any other's. Threads: begin, follow and cancel on one that may block; all else on the gateway's event loop.
// Bounds: kBackgroundMax runs; kEventBytesMax of each one's events, beyond which its streams end, and it is fetched by its id;
// kEndedBytesMax of all that have ended.
// Failure: 429 at the bound; what fails later makes the response "failed".
#pragma once

#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "gateway/gateway.h"
#include "gateway/openai/background_run.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {

inline constexpr std::size_t kBackgroundMax = 1'000;
inline constexpr std::int64_t kEventsKeptMs = 300'000;
inline constexpr std::size_t kEndedBytesMax = 256u << 20;

class BackgroundResponses {
 public:
  BackgroundResponses(Gateway& gateway, ResponsesState& state);  // both outlive this

  // Whether a request asks for it. Cheap where that word is not in it.
  static bool takes(const http::Request& request);
  std::expected<void, ApiError> begin(const http::Request& request, const CallerPtr& caller,
                                      const http::ResponseWriterPtr& writer);
  // What makes the answer, streamed, for `run`.
  using Work = std::function<Result<void>(ResponsesAnswer answer, const http::ResponseWriterPtr& run)>;
  std::expected<void, ApiError> start(const http::Request& request, ResponsesCall call, const CallerPtr& caller,
                                      const http::ResponseWriterPtr& writer, const Work& work);
  // The writer gets the answer, unless this is an error. `after`: a sequence_number; -1: from the first.
  std::expected<void, ApiError> follow(const std::string& owner, const std::string& id, std::int64_t after,
                                       const http::Request& request, const http::ResponseWriterPtr& writer);
  // The cancelled response; 404, or 400 if it was not made in the background.
  http::Response cancel(const std::string& owner, const std::string& id);

 private:
  std::shared_ptr<BackgroundRun> find(const std::string& id) const;
  void forget_ended();
  void leave_all();

  Gateway& gateway_;
  ResponsesState& state_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<BackgroundRun>> runs_;  // shared with the gateway while they last
};

}  // namespace capstan::gateway::openai

// A request that the gateway makes to itself (a batch's line) and waits for; or what else answers to a writer.
//
//   LocalCall call;                                                       // on another thread: call.cancel()
//   http::Response answer = call.perform(gateway, caller, "/v1/chat/completions", body);
//
// It goes the whole way of a client's request: admission, limits, routing, metering. Threads: perform once,
// on a thread that may block; cancel from any, and its work ends on the event loop.  Bounds: the gateway's, of a whole
// answer.
#pragma once

#include <memory>
#include <string>

#include "gateway/gateway.h"

namespace capstan::gateway::openai {

class LocalCall {
 public:
  LocalCall();
  http::Response perform(Gateway& gateway, const CallerPtr& caller, const std::string& target,
                         std::string body);
  // `begin` starts what will answer to the writer.
  http::Response await(Gateway& gateway, const std::function<Result<void>(const http::ResponseWriterPtr&)>& begin);
  void cancel();  // perform then answers 499

 private:
  class Catcher;
  std::shared_ptr<Catcher> catcher_;  // shared with the gateway, which may let go of it later
};

}  // namespace capstan::gateway::openai

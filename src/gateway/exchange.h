// One API's shape over an upstream OpenAI call: what a request means to a replica, and how its answer looks to
// the client. A route of the gateway is a pattern and a factory of exchanges:
//
//   gateway.add_exchange("POST", "/v1/responses", [&] { return std::make_unique<ResponsesExchange>(store); });
//
// The pipeline does the rest (docs/gateway-internals.md): request ids, authentication, admission, routing,
// retries before the first byte, metering, the access line, the client's leaving. Calls, in order:
//
//   begin ─ UpstreamCall ─▶ admission, replica ─▶ on_answer                                (a whole answer)
//     │                                     └──▶ on_stream_begin, on_event…, on_stream_end or on_break (a stream)
//     └─ Response: answered at once                    error() shapes every refusal before the first byte
//
// Threads: an exchange lives on one event loop and its calls come one at a time; none may block, except begin()
// and the answering of routes added with Blocking::kBegin, which then runs on the server's pool.
// After on_answer, on_stream_end or on_break the reply must have been answered to its end.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/admission.h"
#include "gateway/api_error.h"
#include "gateway/usage.h"
#include "http/server.h"

namespace capstan::gateway {

// What to ask of a replica. A body that streams must ask for stream_options.include_usage, or the request is
// metered by estimate.
struct UpstreamCall {
  std::string model = {};
  std::string target = "/v1/chat/completions";
  std::string body = {};
  std::int64_t prompt_tokens = 0;  // 0: estimated from the body's bytes
  std::int64_t completion_tokens_max = 0;  // of all choices together; 0: not bounded by the request
  std::uint64_t affinity_key = 0;          // requests that share a prompt's beginning; 0: from the body's beginning
  ServiceTier tier = ServiceTier::kDefault;  // asked for by the request; the caller's own may be lower
};

// One server-sent event of the replica's stream. Views, valid during the call.
struct StreamEvent {
  std::string_view raw;   // as it came, with the blank line that ends it
  std::string_view data;  // usually one JSON object, or "[DONE]"
  const Usage* usage = nullptr;  // if this event reports it
  std::string_view no_usage = {};  // of `raw`: the member that says that it does not, with its comma
};

// The client's side of one request. Adds x-request-id and the permit's headers. Writes are gathered and sent
// once per turn of the event loop; what the client does not read in time holds the replica back.
class Reply {
 public:
  virtual ~Reply() = default;
  virtual void respond(http::Response response) = 0;  // whole, once
  virtual void start(int status, http::Headers headers) = 0;  // or: head, pieces, end
  virtual void write(std::string_view piece) = 0;
  virtual void finish() = 0;
  virtual const std::string& request_id() const = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  // Reads the client's request, whose body it may move out. The Response: answered without a replica (an error
  // in this API's shape, usually).
  virtual std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) = 0;
  // A refusal or failure before the first byte, in this API's shape.
  virtual http::Response error(const ApiError& error) const = 0;
  // The replica's whole answer: any status, and any answer that is no event stream. `usage` is null if it
  // reports none.
  virtual void on_answer(http::Response answer, const Usage* usage, Reply& reply) = 0;
  // The first event has come; on_event follows at once.
  virtual void on_stream_begin(Reply& reply) = 0;
  virtual void on_event(const StreamEvent& event, Reply& reply) = 0;
  // The replica ended its stream in good order. `usage` is exact if the replica reported it.
  virtual void on_stream_end(const Usage& usage, Reply& reply) = 0;
  // The replica broke off its stream: tell the client inside the stream, and end it.
  virtual void on_break(const ApiError& error, Reply& reply) = 0;
};

using ExchangeFactory = std::function<std::unique_ptr<Exchange>()>;

}  // namespace capstan::gateway

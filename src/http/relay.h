// One request, passed on to another server, and its answer passed back.
//
//   http::relay(client, "http://127.0.0.1:7001", std::move(request), writer, {.who = "the host of sandboxes"});
//
// A short answer is sent whole; a longer one piece by piece: while the client lags, nothing more is read from the server. When
// the client leaves, so does the request to the server.
//
// Threads: of the event loop that `client` and `writer` belong to.  Ownership: `client` outlives the request.
// Failure: RelayOptions::unavailable answers while nothing was sent; a stream that breaks off ends like that for the client, too.
#pragma once

#include <functional>
#include <string>

#include "http/async_client.h"
#include "http/server.h"

namespace capstan::http {

// What belongs to the message and not to one connection.
Headers end_to_end(const Headers& headers);

struct RelayOptions {
  std::string who = "the server";  // as the client is told of it
  int silence_timeout_ms = 24 * 3600 * 1000;  // a stream may say nothing for long; a dead server closes its connection
  // Looks at the answer's head, and may change its headers; an error: it is not what was asked for, and not passed on.
  std::function<Result<void>(Response& head)> on_head = {};
  // The answer for who cannot have one: 503 in the caller's form.
  std::function<Response(const std::string& why)> unavailable = {};
};

// `request`: target, headers (end to end, host not needed) and body as the server shall see them.
void relay(AsyncClient& client, std::string url, Request request, const ResponseWriterPtr& writer, RelayOptions options);

}  // namespace capstan::http

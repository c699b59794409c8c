#include "worker/sandboxes/sandbox_relay.h"

#include "base/sha256.h"
#include "http/relay.h"

namespace capstan::worker {

std::string relay_token(const std::string& worker_token, const std::string& incarnation) {
  return sha256_hex("session host of " + incarnation + " " + sha256_hex(worker_token));
}

void add_sandbox_routes(http::Router& router, const SessionHostProcess& host, const std::string& worker_token,
                        const std::string& incarnation) {
  struct State {
    const SessionHostProcess& host;
    const std::string token, incarnation;
    std::unique_ptr<http::AsyncClient> client;  // of the loop
  };
  const auto state = std::make_shared<State>(  // shared by the routes
      host, relay_token(worker_token, incarnation), incarnation, nullptr);
  router.add_loop_hooks([state](http::EventLoop& loop) { state->client = std::make_unique<http::AsyncClient>(loop); },
                        [state] { state->client.reset(); });
  const auto refusal = [state](int status, const std::string& why) {
    http::Response answer = http::Response::json(status, Json::object({{"code", status}, {"message", why}}));
    answer.headers.set(kWorkerHeader, state->incarnation);
    return answer;
  };
  const auto pass = [state, refusal](http::Request request, const http::ResponseWriterPtr& writer) {
    if (!equal_constant_time(request.headers.get(kHostTokenHeader), state->token))
      return writer->respond(refusal(403, "this is the controller's way to the sandboxes of this host"));
    const auto to = state->host.listens();
    if (!to) return writer->respond(refusal(503, to.error().message));
    http::Request passed{.method = request.method,
                         .target = request.target.substr(kSessionHostPrefix.size()),
                         .headers = http::end_to_end(request.headers),
                         .body = std::move(request.body),
                         .body_file = std::move(request.body_file)};
    passed.headers.set(kHostTokenHeader, to->token);
    http::relay(*state->client, to->url, std::move(passed), writer,
                {.who = "the session host",
                 .on_head = [state](http::Response& head) -> Result<void> {
                   head.headers.set(kWorkerHeader, state->incarnation);
                   return {};
                 },
                 .unavailable = [refusal](const std::string& why) { return refusal(503, why); }});
  };
  for (const char* method : {"GET", "POST", "PUT", "DELETE"})
    router.add_on_loop(method, std::string(kSessionHostPrefix) + "/{rest...}", pass);
  router.allow_large_bodies("POST", std::string(kSessionHostPrefix) + "/files", http::kUploadBytesMax);
}

}  // namespace capstan::worker

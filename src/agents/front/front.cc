// How it works: a request names its sandbox in its path, in a header or (MCP) in its query. What cannot be of the scheduler
// goes to this host at once; for the rest the resolver is asked.
#include "agents/front/front.h"

#include <set>

#include "agents/front/destination.h"
#include "agents/front/list.h"
#include "agents/front/resolver.h"
#include "agents/sessions/usage_json.h"
#include "agents/sessions/session_id.h"
#include "base/log.h"

namespace capstan::agents {
namespace {

constexpr auto kFetchEvery = std::chrono::seconds(2);
constexpr int kFetchMax = 1'000;
constexpr int kOthersEvery = 5;  // of the fetches of this host

struct Open {
  std::string_view method, pattern;
};
// Those for which a caller must be known.
constexpr Open kOwned[] = {{"POST", "/v2/sandboxes"},
                           {"POST", "/v2/sandboxes/{id}/connect"},
                           {"POST", "/sandboxes"},
                           {"GET", "/sandboxes/{id}"},
                           {"DELETE", "/sandboxes/{id}"},
                           {"POST", "/sandboxes/{id}/{action}"},
                           {"GET", "/sandboxes/{id}/{action}"},
                           {"PUT", "/sandboxes/{id}/{action}"},
                           {"GET", "/snapshots"},
                           {"GET", "/templates"},
                           {"DELETE", "/templates/{id...}"},
                           {"POST", "/mcp"},
                           {"GET", "/mcp"},
                           {"DELETE", "/mcp"}};
// Those that a sandbox's token opens.
constexpr Open kWithToken[] = {{"POST", "/process.Process/{call}"},
                               {"POST", "/filesystem.Filesystem/{call}"},
                               {"GET", "/files"},
                               {"POST", "/files"},
                               {"GET", "/health"},
                               {"POST", "/execute"},
                               {"GET", "/contexts"},
                               {"POST", "/contexts"},
                               {"DELETE", "/contexts/{id}"},
                               {"POST", "/contexts/{id}/restart"}};
// What would make something on the sandbox's host that nobody finds there.
constexpr std::string_view kOfOwnHostOnly[] = {"fork", "snapshots"};

std::string sandbox_of(const http::Request& request) {
  const std::string id = request.param("id");
  if (!id.empty() && request.path.find("/sandboxes/") != request.path.npos) return id;
  if (const std::string* named = request.headers.find("e2b-sandbox-id")) return *named;
  return request.path == "/mcp" ? request.query_value("sandbox").value_or("") : std::string();
}

int status_of(Code code) { return code == Code::kConflict ? 409 : code == Code::kNotFound ? 404 : 503; }

// What a host recorded, into the store: 0 if there was nothing. What is recorded but not settled comes again, and counts once
// by its id.
Result<std::size_t> fetch_usage(const Destination& from, const FrontOptions& options) {
  http::Client client;
  const auto ask = [&](std::string method, std::string target) -> Result<http::Response> {
    CAPSTAN_TRY(auto answer, from.ask(client, {.method = std::move(method), .target = std::move(target)}, ""));
    if (answer.status >= 300) return fail(Code::kUnavailable, "{} answers {}", from.who, answer.status);
    return answer;
  };
  for (std::size_t all = 0;;) {
    CAPSTAN_TRY(const auto answer, ask("GET", fmt::format("/host/usage?limit={}", kFetchMax)));
    CAPSTAN_TRY(const Json json, Json::parse(answer.body));
    if (json.find("records") == nullptr || json.find("records")->size() == 0) return all;
    std::vector<store::ComputeRecord> records;
    for (const Json& one : json.find("records")->items()) {
      if (auto record = compute_record_of(one)) records.push_back(std::move(*record));
    }
    if (const auto done = options.record(records); !done) {
      log_warn("usage of sandboxes cannot be recorded yet", "error=\"{}\"", done.error().message);
      return std::unexpected(done.error());
    }
    all += records.size();
    CAPSTAN_TRY(const auto settled, ask("POST", fmt::format("/host/usage/settle?last={}", json.get_int("last").value_or(0))));
    (void)settled;
  }
}

}  // namespace

struct Front::State {
  FrontOptions options;
  HostAddress address;
  http::EventLoop* loop = nullptr;
  std::unique_ptr<http::AsyncClient> client;  // of the loop
  std::unique_ptr<Resolver> resolver;
  std::set<std::string> owing;  // other hosts that may have usage; of the thread
  explicit State(FrontOptions o) : options(std::move(o)), address(options.address) {
    if (options.places != nullptr) resolver = std::make_unique<Resolver>(*options.places);
  }

  void send(const Destination& to, http::Request request, const std::string& owner, const http::ResponseWriterPtr& writer) {
    http::relay(*client, to.url, to.request(std::move(request), owner), writer,
                {.who = to.who,
                 .on_head = [to](http::Response& head) { return to.check(head); },
                 .unavailable = [](const std::string& why) { return front_refusal(503, why); }});
  }

  void send(const Place& place, http::Request request, const std::string& owner, const http::ResponseWriterPtr& writer) {
    if (!place.is_own()) {
      for (const std::string_view action : kOfOwnHostOnly) {
        if (request.param("action") == action)
          return writer->respond(front_refusal(
              409, fmt::format("sandbox {} runs on host {}; snapshots and forks are possible only on the host of this API, "
                               "where those who use them run", request.param("id"), place.host)));
      }
      return send(Destination::of(place), std::move(request), owner, writer);
    }
    const auto host = address.now();
    if (!host) return writer->respond(front_refusal(503, host.error().message));
    send(Destination::of(*host), std::move(request), owner, writer);
  }
};

Front::Front(FrontOptions options) : state_(std::make_shared<State>(std::move(options))) {}
Front::~Front() { stop(); }

void Front::mount(http::Router& router) {
  router.add_loop_hooks(
      [state = state_](http::EventLoop& loop) {
        state->loop = &loop;
        state->client = std::make_unique<http::AsyncClient>(loop);
      },
      [state = state_] {
        if (state->resolver) state->resolver->stop();
        state->client.reset();
      });
  const auto add = [&](const Open& route, bool owned) {
    router.add_on_loop(
        std::string(route.method), std::string(route.pattern),
        [state = state_, owned](http::Request request, const http::ResponseWriterPtr& writer) {
          std::string owner;
          if (owned) {
            auto known = state->options.authenticate(request);
            if (!known) return writer->respond(std::move(known.error()));
            owner = std::move(*known);
          }
          const std::string sandbox = sandbox_of(request);
          if (!state->resolver || sandbox.empty() || is_unplaced_id(sandbox))
            return state->send(Place{}, std::move(request), owner, writer);
          state->resolver->find(
              sandbox, owner, *state->loop,
              [state, owner, writer, request = std::move(request)](const Result<Place>& place) mutable {
                if (!place) return writer->respond(front_refusal(status_of(place.error().code), place.error().message));
                state->send(*place, std::move(request), owner, writer);
              });
        });
  };
  for (const Open& route : kOwned) add(route, true);
  for (const Open& route : kWithToken) add(route, false);
  router.allow_large_bodies("POST", "/files", http::kUploadBytesMax);
  for (const char* path : {"/v2/sandboxes", "/sandboxes"}) {
    router.add("GET", path, [state = state_](const http::Request& request, const http::ResponseWriterPtr& writer) {
      const auto owner = state->options.authenticate(request);
      if (!owner) return writer->respond(owner.error());
      writer->respond(list_sandboxes(state->address, state->options.places, request, *owner));
    });
  }
}

void Front::start() {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    for (int round = 0; !leaving_; ++round) {
      changed_.wait_for(lock, kFetchEvery, [&] { return leaving_; });
      lock.unlock();
      fetch_own_usage();
      if (round % kOthersEvery == 0) fetch_others_usage(round == 0);
      lock.lock();
    }
  });
}

void Front::stop() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    changed_.notify_all();
  }
  if (state_->resolver) state_->resolver->stop();
  if (!thread_.joinable()) return;
  thread_.join();
  // Sessions end with the gateway; what they used is known then.
  if (const auto host = state_->address.now()) {
    http::Client client;
    (void)Destination::of(*host).ask(client, {.method = "POST", .target = "/host/end"}, "");
  }
  fetch_own_usage();
}

void Front::fetch_own_usage() {
  if (const auto host = state_->address.now()) (void)fetch_usage(Destination::of(*host), state_->options);
}

// Of those that have sandboxes, and once more afterwards; of all when this process begins, since it does not know who had some.
void Front::fetch_others_usage(bool all) {
  if (state_->options.places == nullptr) return;
  std::set<std::string> live;
  for (const Place& place : state_->options.places->with_sandboxes()) live.insert(place.host);
  state_->owing.insert(live.begin(), live.end());
  const std::vector<Place> others = state_->options.places->others();
  for (const Place& place : others) {
    if (!all && !state_->owing.contains(place.host)) continue;
    state_->owing.insert(place.host);
    const auto fetched = fetch_usage(Destination::of(place), state_->options);
    if (fetched && *fetched == 0 && !live.contains(place.host)) state_->owing.erase(place.host);
  }
}

}  // namespace capstan::agents

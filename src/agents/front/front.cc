#include "agents/front/front.h"

#include "agents/front/relay.h"
#include "agents/front/usage_json.h"
#include "base/file.h"
#include "base/log.h"
#include "http/client.h"

namespace capstan::agents {
namespace {

constexpr auto kFetchEvery = std::chrono::seconds(2);
constexpr int kFetchMax = 1'000;
constexpr int kFetchTimeoutMs = 5'000;

struct Open {
  std::string_view method, pattern;
};
// Those for which a caller must be known.
constexpr Open kOwned[] = {{"POST", "/v2/sandboxes"},
                           {"GET", "/v2/sandboxes"},
                           {"POST", "/v2/sandboxes/{id}/connect"},
                           {"POST", "/sandboxes"},
                           {"GET", "/sandboxes"},
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

}  // namespace

struct Front::State {
  FrontOptions options;
  HostAddress address;
  std::unique_ptr<http::AsyncClient> client;  // of the loop
  explicit State(FrontOptions o) : options(std::move(o)), address(options.address) {}
};

Front::Front(FrontOptions options) : state_(std::make_shared<State>(std::move(options))) {}
Front::~Front() { stop(); }

void Front::mount(http::Router& router) {
  router.add_loop_hooks(
      [state = state_](http::EventLoop& loop) { state->client = std::make_unique<http::AsyncClient>(loop); },
      [state = state_] { state->client.reset(); });
  const auto add = [&](const Open& route, bool owned) {
    router.add_on_loop(std::string(route.method), std::string(route.pattern),
                       [state = state_, owned](http::Request request, const http::ResponseWriterPtr& writer) {
                         std::string owner;
                         if (owned) {
                           auto known = state->options.authenticate(request);
                           if (!known) return writer->respond(std::move(known.error()));
                           owner = std::move(*known);
                         }
                         relay(*state->client, state->address, std::move(request), owner, writer);
                       });
  };
  for (const Open& route : kOwned) add(route, true);
  for (const Open& route : kWithToken) add(route, false);
}

void Front::start() {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!leaving_) {
      changed_.wait_for(lock, kFetchEvery, [&] { return leaving_; });
      lock.unlock();
      fetch_usage();
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
  if (!thread_.joinable()) return;
  thread_.join();
  // Sessions end with the gateway; what they used is known then.
  http::Client client;
  if (const auto host = state_->address.now()) {
    (void)client.request(host->url,
                         {.method = "POST",
                          .target = "/host/end",
                          .headers = {{std::string(kHostTokenHeader), host->token}}},
                         {.timeout_ms = kFetchTimeoutMs});
  }
  fetch_usage();
}

// What is recorded but not settled comes again, and counts once by its id.
void Front::fetch_usage() {
  http::Client client;
  for (;;) {
    const auto host = state_->address.now();
    if (!host) return;
    http::Request ask{.target = fmt::format("/host/usage?limit={}", kFetchMax),
                      .headers = {{std::string(kHostTokenHeader), host->token}}};
    const auto answer = client.request(host->url, ask, {.timeout_ms = kFetchTimeoutMs});
    if (!answer || answer->status != 200) return;
    const auto json = Json::parse(answer->body);
    if (!json || json->find("records") == nullptr || json->find("records")->size() == 0) return;
    std::vector<store::ComputeRecord> records;
    for (const Json& one : json->find("records")->items()) {
      if (auto record = compute_record_of(one)) records.push_back(std::move(*record));
    }
    if (const auto done = state_->options.record(records); !done) {
      log_warn("usage of sandboxes cannot be recorded yet", "error=\"{}\"", done.error().message);
      return;
    }
    http::Request settle{.method = "POST",
                         .target = fmt::format("/host/usage/settle?last={}", json->get_int("last").value_or(0)),
                         .headers = {{std::string(kHostTokenHeader), host->token}}};
    if (const auto settled = client.request(host->url, settle, {.timeout_ms = kFetchTimeoutMs}); !settled) return;
  }
}

}  // namespace capstan::agents

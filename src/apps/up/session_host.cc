#include "apps/up/session_host.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "agents/e2b/e2b.h"
#include "agents/front/front.h"
#include "agents/front/usage_json.h"
#include "agents/mcp/mcp.h"
#include "agents/sessions/session_manager.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/steady_time.h"
#include "base/text.h"
#include "http/server.h"
#include "sandbox/launcher.h"

namespace capstan::apps {
namespace {

constexpr int kThreads = 64;
constexpr int kTokenBytes = 24;
constexpr int kStopMs = 10'000;
constexpr std::int64_t kUsageMax = 10'000;

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // written by a signal handler

std::int64_t number(const http::Request& request, std::string_view name) {
  return parse_int(request.query_value(name).value_or("")).value_or(0);
}

// What the front asks for itself.
void add_host_routes(http::Router& router, agents::SessionManager& manager) {
  router.add("GET", "/host/usage", [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const auto limit = std::clamp<std::int64_t>(number(request, "limit"), 1, kUsageMax);
    const auto batch = manager.usage(static_cast<std::size_t>(limit));
    Json records = Json::array();
    for (const auto& record : batch.records) records.push_back(agents::to_json(record));
    writer->respond(http::Response::json(200, Json::object({{"last", batch.last}, {"records", std::move(records)}})));
  });
  router.add("POST", "/host/usage/settle",
             [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
               manager.settle(number(request, "last"));
               writer->respond({.status = 204});
             });
  router.add("POST", "/host/end", [&manager](const http::Request&, const http::ResponseWriterPtr& writer) {
    for (const auto& session : manager.all()) (void)manager.end(session->id(), session->terms().owner);
    writer->respond({.status = 204});
  });
}

Result<void> announce(const DataDirectory& data, const Identity& identity, int port, const std::string& token,
                      const std::string& refusal) {
  const auto path = data.path() / kSessionsAddress;
  const Json address =
      Json::object({{"pid", ::getpid()}, {"port", port}, {"token", token}, {"refusal", refusal}});
  CAPSTAN_CHECK(write_file_atomic(path, address.dump() + "\n", 0600));
  if (::chown(path.c_str(), identity.uid, identity.gid) != 0) return fail_errno("cannot give away " + path.string(), errno);
  return {};
}

Result<void> serve(const DataDirectory& data, const Identity& identity) {
  const std::string token = random_hex(kTokenBytes);
  std::string refusal;
  const auto host = sandbox::check_host({});
  if (const auto enough = host ? sandbox::require(*host, {}) : Result<void>(std::unexpected(host.error())); !enough)
    refusal = enough.error().message;
  std::unique_ptr<http::Server> server;  // first here, last to go: what sessions have under way posts to its loop
  agents::SessionManager manager({.instance = fmt::format("up-{:08x}", fnv1a(data.path().string()) & 0xFFFFFFFF),
                                  .directory = data.path() / "sessions"});
  http::Router router;
  router.add_guard("/", [token](const http::Request& request) -> std::optional<http::Response> {
    if (equal_constant_time(request.headers.get(agents::kHostTokenHeader), token)) return std::nullopt;
    return http::Response::text(403, "this is the gateway's way to its sandboxes\n");
  });
  router.add_loop_hooks([&](http::EventLoop& loop) { manager.run_on(loop); }, [] {});
  agents::e2b::add_routes(router, manager);
  agents::mcp::McpServer mcp(manager);
  mcp.add_routes(router);
  add_host_routes(router, manager);
  CAPSTAN_TRY(server, http::Server::start({.threads = kThreads}, router));
  CAPSTAN_CHECK(announce(data, identity, server->port(), token, refusal));
  log_info("session host", "port={} refusal=\"{}\"", server->port(), refusal);
  while (!stop_asked) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::error_code ignored;
  std::filesystem::remove(data.path() / kSessionsAddress, ignored);
  for (const auto& session : manager.all()) session->end();
  server->stop(0);
  return {};
}

[[noreturn]] void host_child(const DataDirectory& data, const Identity& identity, pid_t supervisor) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(1);
  // The terminal's Ctrl-C is for the supervisor, which ends us last: our usage is still to be fetched.
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = true; };
  ::sigaction(SIGTERM, &action, nullptr);
  log_configure("sessions", LogLevel::kInfo);
  (void)log_to_file((data.path() / "log/sessions.log").c_str());
  const auto served = serve(data, identity);
  if (!served) log_error("the session host ends", "error=\"{}\"", served.error().message);
  std::fflush(nullptr);
  ::_exit(served ? 0 : 1);
}

}  // namespace

void SessionHost::ensure() {
  if (child_ > 0 && ::waitpid(child_, nullptr, WNOHANG) != child_) return;
  child_ = -1;
  if (started_ms_ != 0 && steady_now_ms() - started_ms_ < kRestartMs) return;
  started_ms_ = steady_now_ms();
  const pid_t supervisor = ::getpid();
  child_ = ::fork();
  if (child_ < 0) log_error("cannot start the session host", "errno={}", errno);
  if (child_ == 0) host_child(data_, identity_, supervisor);
}

void SessionHost::stop() {
  if (child_ <= 0) return;
  ::kill(child_, SIGTERM);
  for (int waited_ms = 0; ::waitpid(child_, nullptr, WNOHANG) == 0; waited_ms += 10) {
    if (waited_ms == kStopMs) ::kill(child_, SIGKILL);
    ::usleep(10'000);
  }
  child_ = -1;
}

}  // namespace capstan::apps

#include "apps/up/session_host.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "agents/e2b/e2b.h"
#include "agents/front/front.h"
#include "agents/sessions/usage_json.h"
#include "agents/mcp/mcp.h"
#include "agents/sessions/placed.h"
#include "agents/sessions/session_manager.h"
#include "base/build_id.h"
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
constexpr int kLookMs = 1'000;
constexpr std::int64_t kUsageMax = 10'000;

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // written by a signal handler

std::int64_t number(const http::Request& request, std::string_view name) {
  return parse_int(request.query_value(name).value_or("")).value_or(0);
}

// What the front asks for itself.
void add_host_routes(http::Router& router, agents::SessionManager& manager, const agents::PlacedSessions& placed) {
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
  // A worker of another build asks: 409 while there are sessions.
  router.add("POST", "/host/retire", [&manager](const http::Request&, const http::ResponseWriterPtr& writer) {
    if (manager.retire()) return writer->respond({.status = 204});
    const std::string why = fmt::format("{} sessions are left", manager.all().size());
    writer->respond(http::Response::json(409, Json::object({{"message", why}})));
  });
  // Capstan leaves: what was made through its API ends, what the scheduler placed goes on.
  router.add("POST", "/host/end", [&manager, &placed](const http::Request&, const http::ResponseWriterPtr& writer) {
    for (const auto& session : manager.all()) {
      if (!placed.holds(session->id())) (void)manager.end(session->id(), session->terms().owner);
    }
    writer->respond({.status = 204});
  });
}

// Whoever holds the file locked is the session host of the data directory.
Result<sandbox::Fd> take_place(const std::filesystem::path& data) {
  const std::string path = data / "worker/session-host.json";
  sandbox::Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno("cannot open " + path, errno);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(Code::kConflict, "a session host runs already for {}", data.string());
  if (::ftruncate(file.get(), 0) != 0) return fail_errno("cannot write " + path, errno);  // what the one before said
  return file;
}

// For the worker, which trusts only what is its own; and for the controller's user.
Result<void> announce(const std::filesystem::path& data, const sandbox::Fd& place, Json address) {
  struct stat owner {};
  if (::stat(data.c_str(), &owner) != 0) return fail_errno("cannot look at " + data.string(), errno);
  const std::string text = address.dump() + "\n";
  if (::pwrite(place.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail_errno("cannot write session-host.json", errno);
  const auto path = data / kSessionsAddress;
  CAPSTAN_CHECK(write_file_atomic(path, text, 0600));
  if (::lchown(path.c_str(), owner.st_uid, owner.st_gid) != 0) return fail_errno("cannot give away " + path.string(), errno);
  return {};
}

// Why it should leave, or nothing.
class Watch {
 public:
  explicit Watch(const std::filesystem::path& data)
      : directory_(::open((data / "worker").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

  std::string_view leaves(std::size_t sessions) {
    if (stop_asked) return "asked to";
    const std::int64_t now_ms = steady_now_ms();
    if (now_ms - looked_ms_ < kLookMs) return {};
    looked_ms_ = now_ms;
    struct stat status {};
    if (::fstat(directory_.get(), &status) == 0 && status.st_nlink == 0) return "its data directory was removed";
    const sandbox::Fd lock(::openat(directory_.get(), "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    const bool worker = lock && ::flock(lock.get(), LOCK_SH | LOCK_NB) != 0;
    if (worker || sessions > 0) alone_since_ms_ = now_ms;
    return now_ms - alone_since_ms_ > kAloneMs ? "no session and no worker" : std::string_view();
  }

 private:
  const sandbox::Fd directory_;
  std::int64_t looked_ms_ = 0, alone_since_ms_ = steady_now_ms();
};

Result<void> serve(const std::filesystem::path& data) {
  CAPSTAN_TRY(const sandbox::Fd place, take_place(data));
  const std::string token = random_hex(kTokenBytes);
  std::string refusal;
  const auto host = sandbox::check_host({});
  if (const auto enough = host ? sandbox::require(*host, {}) : Result<void>(std::unexpected(host.error())); !enough)
    refusal = enough.error().message;
  std::unique_ptr<http::Server> server;  // first here, last to go: what sessions have under way posts to its loop
  agents::PlacedSessions placed;
  agents::SessionManager manager(
      {.instance = fmt::format("up-{:08x}", fnv1a(data.string()) & 0xFFFFFFFF),
       .directory = data / "sessions",
       .on_end = [&placed](const agents::Session& session, agents::SessionEnd how) { placed.ended(session, how); }});
  placed.manage(manager);
  http::Router router;
  router.add_guard("/", [token](const http::Request& request) -> std::optional<http::Response> {
    if (equal_constant_time(request.headers.get(agents::kHostTokenHeader), token)) return std::nullopt;
    return http::Response::text(403, "this is the gateway's way to its sandboxes\n");
  });
  router.add_loop_hooks([&](http::EventLoop& loop) { manager.run_on(loop); }, [] {});
  agents::e2b::add_routes(router, manager);
  agents::mcp::McpServer mcp(manager);
  mcp.add_routes(router);
  placed.add_routes(router);
  add_host_routes(router, manager, placed);
  CAPSTAN_TRY(server, http::Server::start({.threads = kThreads, .body_directory = data}, router));
  const Json address = Json::object({{"pid", ::getpid()},
                                     {"port", server->port()},
                                     {"token", token},
                                     {"refusal", refusal},
                                     {"build", build_id()}});
  CAPSTAN_CHECK(announce(data, place, address));
  log_info("session host", "port={} refusal=\"{}\"", server->port(), refusal);
  Watch watch(data);
  std::string_view why;
  const auto leaves = [&]() -> std::string_view {
    return manager.is_retired() ? "another build takes over" : watch.leaves(manager.all().size());
  };
  while ((why = leaves()).empty()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  log_info("session host leaves", "why=\"{}\"", why);
  std::error_code ignored;
  std::filesystem::remove(data / kSessionsAddress, ignored);
  manager.close();
  server->stop(0);
  return {};
}

}  // namespace

int run_session_host(const std::filesystem::path& data) {
  for (const int signal : {SIGINT, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = true; };
  ::sigaction(SIGTERM, &action, nullptr);
  log_configure("sessions", LogLevel::kInfo);
  (void)log_to_file((data / "log/sessions.log").c_str());
  const auto served = serve(data);
  if (served || served.error().code == Code::kConflict) return 0;
  log_error("the session host ends", "error=\"{}\"", served.error().message);
  return 1;
}

}  // namespace capstan::apps

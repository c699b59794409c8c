// filesystem.Filesystem's watchers: a stream of changes (WatchDir), or changes that wait to be fetched (CreateWatcher …).
#include <algorithm>
#include <deque>

#include "agents/e2b/connect.h"
#include "agents/e2b/e2b.h"
#include "agents/sessions/directory_watch.h"
#include "agents/sessions/paths.h"
#include "base/file.h"
#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

constexpr std::size_t kWatchersMax = 1'000;  // of all sessions, that wait to be fetched
constexpr std::size_t kEventsMax = 10'000;
constexpr std::int64_t kKeepaliveSMax = 3'600, kKeepaliveSDefault = 50;
constexpr int kWatcherIdBytes = 10;
constexpr std::int64_t kLookEveryMs = 1'000;

std::string_view name_of(Change change) {
  switch (change) {
    case Change::kCreate: return "EVENT_TYPE_CREATE";
    case Change::kWrite: return "EVENT_TYPE_WRITE";
    case Change::kRemove: return "EVENT_TYPE_REMOVE";
    case Change::kRename: return "EVENT_TYPE_RENAME";
    case Change::kChmod: return "EVENT_TYPE_CHMOD";
    case Change::kOverflow: break;
  }
  return "EVENT_TYPE_UNSPECIFIED";
}

Json event_json(Change change, const std::string& name) {
  return Json::object({{"name", name}, {"type", name_of(change)}});
}

// One client's stream. Of the loop, but for its making.
class WatchStream : public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(SessionPtr session, http::ResponseWriterPtr writer, std::int64_t keepalive_ms)
      : session_(std::move(session)), writer_(std::move(writer)), keepalive_ms_(keepalive_ms) {}

  void begin(std::shared_ptr<DirectoryWatch> watch, http::EventLoop& loop) {
    watch_ = std::move(watch);
    writer_->start(200, stream_headers());
    writer_->write(frame(Json::object({{"start", Json::object()}})));
    timer_ = std::make_unique<http::EventLoop::Timer>(loop, [self = shared_from_this()] { self->look(); });
    timer_->arm(kLookEveryMs);
    writer_->on_client_gone([self = shared_from_this()] { self->end(std::nullopt); });
  }
  void on_change(Change change, const std::string& name) {
    if (!timer_) return;
    if (change == Change::kOverflow)
      return end(Error{Code::kExhausted, "changes came faster than they could be reported", {}});
    writer_->write(frame(Json::object({{"filesystem", event_json(change, name)}})));
    if (writer_->unsent_bytes() > kBacklogBytesMax) end(Error{Code::kExhausted, "the client does not keep up", {}});
  }

 private:
  void look() {
    if (session_->state() == Session::State::kEnded)
      return end(Error{Code::kUnavailable, "the sandbox has ended", {}});
    since_keepalive_ms_ += kLookEveryMs;
    if (since_keepalive_ms_ >= keepalive_ms_) {
      since_keepalive_ms_ = 0;
      writer_->write(frame(Json::object({{"keepalive", Json::object()}})));
    }
    timer_->arm(kLookEveryMs);
  }
  void end(const std::optional<Error>& error) {
    const auto keep = shared_from_this();
    if (!timer_) return;
    timer_->disarm();
    if (error) writer_->write(end_frame(*error));
    writer_->finish();
    if (watch_) watch_->stop();
    // Not here: this may be the timer's own call.
    watch_->loop().post([keep] { keep->timer_.reset(); });
  }

  const SessionPtr session_;
  const http::ResponseWriterPtr writer_;
  const std::int64_t keepalive_ms_;
  std::int64_t since_keepalive_ms_ = 0;
  std::shared_ptr<DirectoryWatch> watch_;
  std::unique_ptr<http::EventLoop::Timer> timer_;
};

Result<std::string> directory_of(const Session& session, const Json& message) {
  CAPSTAN_TRY(const std::string path, path_inside(message.get_string("path").value_or("")));
  CAPSTAN_TRY(const auto entry, sandbox::stat_inside(session.root_fd(), path));
  if (entry.type != 'd') return fail(Code::kInvalid, "{} is not a directory", shown_path(path));
  return path;
}

Result<void> watch_dir(const SessionPtr& session, const Json& message, const http::Request& request,
                       const http::ResponseWriterPtr& writer) {
  CAPSTAN_TRY(const std::string path, directory_of(*session, message));
  const std::int64_t keepalive_s =
      std::clamp<std::int64_t>(parse_int(request.headers.get("keepalive-ping-interval")).value_or(kKeepaliveSDefault), 1,
                               kKeepaliveSMax);
  const auto stream = std::make_shared<WatchStream>(session, writer, keepalive_s * 1000);
  CAPSTAN_TRY(const auto watch,
              DirectoryWatch::start(session->loop(), session->root_fd(), path,
                                    {.recursive = message.get_bool("recursive").value_or(false)},
                                    [stream](Change change, const std::string& name) { stream->on_change(change, name); }));
  session->loop().post([stream, watch, &loop = session->loop()] { stream->begin(watch, loop); });
  return {};
}

// Watchers whose changes wait to be fetched.
struct Waiting {
  std::string session;
  std::shared_ptr<DirectoryWatch> watch;
  std::deque<std::pair<Change, std::string>> events;
};
struct Watchers {
  std::mutex mutex;
  std::map<std::string, Waiting> all;

  // The session's one that a message names; under mutex.
  Result<std::map<std::string, Waiting>::iterator> find(const Session& session, const Json& message) {
    const std::string id = message.get_string("watcherId").value_or("");
    const auto found = all.find(id);
    if (found == all.end() || found->second.session != session.id())
      return fail(Code::kNotFound, "there is no watcher {}", id);
    return found;
  }
};

Result<Json> create_watcher(const std::shared_ptr<Watchers>& watchers, const SessionManager& manager, Session& session,
                            const Json& message) {
  CAPSTAN_TRY(const std::string path, directory_of(session, message));
  const std::string id = random_hex(kWatcherIdBytes);
  CAPSTAN_TRY(auto watch, DirectoryWatch::start(session.loop(), session.root_fd(), path,
                                                {.recursive = message.get_bool("recursive").value_or(false)},
                                                [watchers, id](Change change, const std::string& name) {
                                                  const std::lock_guard lock(watchers->mutex);
                                                  const auto found = watchers->all.find(id);
                                                  if (found == watchers->all.end()) return;
                                                  if (found->second.events.size() == kEventsMax)
                                                    found->second.events.pop_front();
                                                  found->second.events.emplace_back(change, name);
                                                }));
  const auto sessions = manager.all();
  const std::lock_guard lock(watchers->mutex);
  std::erase_if(watchers->all, [&](const auto& one) {
    const bool gone = std::ranges::none_of(sessions, [&](const auto& s) { return s->id() == one.second.session; });
    if (gone) one.second.watch->stop();
    return gone;
  });
  if (watchers->all.size() >= kWatchersMax) {
    watch->stop();
    return fail(Code::kExhausted, "{} watchers, the most that may", kWatchersMax);
  }
  watchers->all[id] = {session.id(), std::move(watch), {}};
  return Json::object({{"watcherId", id}});
}

Result<Json> watcher_events(Watchers& watchers, const Session& session, const Json& message) {
  const std::lock_guard lock(watchers.mutex);
  CAPSTAN_TRY(const auto found, watchers.find(session, message));
  Json events = Json::array();
  for (const auto& [change, name] : found->second.events) events.push_back(event_json(change, name));
  found->second.events.clear();
  return Json::object({{"events", std::move(events)}});
}

Result<Json> remove_watcher(Watchers& watchers, const Session& session, const Json& message) {
  const std::lock_guard lock(watchers.mutex);
  CAPSTAN_TRY(const auto found, watchers.find(session, message));
  found->second.watch->stop();
  watchers.all.erase(found);
  return Json::object();
}

}  // namespace

void add_watch_routes(http::Router& router, SessionManager& manager) {
  const auto watchers = std::make_shared<Watchers>();  // shared by the routes and the watches
  const std::string service = "/filesystem.Filesystem/";
  add_stream(router, manager, service + "WatchDir", watch_dir);
  add_unary(router, manager, service + "CreateWatcher", [watchers, &manager](Session& session, const Json& message) {
    return create_watcher(watchers, manager, session, message);
  });
  add_unary(router, manager, service + "GetWatcherEvents",
            [watchers](Session& session, const Json& message) { return watcher_events(*watchers, session, message); });
  add_unary(router, manager, service + "RemoveWatcher",
            [watchers](Session& session, const Json& message) { return remove_watcher(*watchers, session, message); });
}

}  // namespace capstan::agents::e2b

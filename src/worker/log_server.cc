// How it works: a handler opens the log and becomes a follower; one thread moves bytes from files to clients,
// so an open `logs -f` costs no thread. A rank's state is read before its log, so the last bytes of an ended
// rank are sent.
#include "worker/log_server.h"

#include <fcntl.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "base/sha256.h"
#include "base/text.h"
#include "http/server.h"
#include "worker/log_reader.h"

namespace capstan::worker {
namespace {

constexpr std::size_t kFeedBytesMax = 512 * 1024;
constexpr int kFeedPauseMs = 5;
constexpr std::size_t kResultsPieceBytes = 256 * 1024;

struct Follower {
  RankId id;
  bool follow = false;
  LogReader reader;
  http::ResponseWriterPtr writer;
};

http::Response error(int status, std::string_view code, std::string_view message) {
  return http::Response::json(
      status, Json::object({{"error", Json::object({{"code", code}, {"message", message}})}}));
}

std::optional<std::int64_t> number(const http::Request& request, std::string_view name) {
  const auto text = request.query_value(name);
  return text ? parse_int(*text) : std::nullopt;
}

}  // namespace

struct LogServer::State {
  const DataDirectory& data;
  const Supervisor& supervisor;
  std::string token;
  Results results;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::list<Follower> followers;
  std::unique_ptr<http::Server> server;
  std::jthread feeder;

  bool may_not(const http::Request& request, const http::ResponseWriterPtr& writer) const {
    if (equal_constant_time(request.headers.get("authorization"), "Bearer " + token)) return false;
    writer->respond(error(401, "denied", "the worker's token is needed"));
    return true;
  }

  // What is there now; the handler's thread waits for a slow client.
  void send_results(const http::Request& request, const http::ResponseWriterPtr& writer) {
    if (may_not(request, writer)) return;
    const auto job = number(request, "job");
    if (!job || !results) return writer->respond(error(400, "invalid", "job must be an integer"));
    const auto file = results(*job);
    if (!file) return writer->respond(error(404, "not_found", "this host has no results of it"));
    writer->start(200, {{"content-type", "application/jsonl"}, {"cache-control", "no-store"}});
    std::string buffer(kResultsPieceBytes, '\0');
    for (ssize_t size; (size = ::read(file->get(), buffer.data(), buffer.size())) > 0;) {
      if (!writer->write(std::string_view(buffer.data(), static_cast<std::size_t>(size)))) return;
    }
    writer->finish();
  }

  void handle(const http::Request& request, const http::ResponseWriterPtr& writer) {
    if (may_not(request, writer)) return;
    const auto job = number(request, "job"), attempt = number(request, "attempt"),
               rank = number(request, "rank");
    if (!job || !attempt || !rank)
      return writer->respond(error(400, "invalid", "job, attempt and rank must be integers"));
    const RankId id{*job, *attempt, *rank};
    const std::string folder = fmt::format("{}/{}", id.job, id.attempt);
    Descriptor directory(
        ::openat(data.logs_fd(), folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    const std::string name = fmt::format("{}.log", id.rank);
    const bool known = supervisor.state_of(id).has_value();
    if (!directory || (!known && ::faccessat(directory.get(), name.c_str(), F_OK, 0) != 0)) {
      return writer->respond(error(404, "not_found", "this host has no log of rank " + id.text()));
    }
    const bool follow = request.query_value("follow").value_or("0") == "1";
    Follower follower{id, follow, LogReader(std::move(directory), name, number(request, "tail_bytes")),
                      writer};
    const std::lock_guard lock(mutex);
    if (followers.size() >= kFollowersMax)
      return writer->respond(error(503, "exhausted", "too many logs are being read"));
    writer->start(200, {{"content-type", "text/plain; charset=utf-8"}, {"cache-control", "no-store"}});
    followers.push_back(std::move(follower));
    changed.notify_all();
  }

  // Sends what is there, at most kFeedBytesMax so that the server's queue to the client is not flooded. False
  // when the follower is served; one that lags by more than that queue is cut.
  bool feed(Follower& follower, bool& more) {
    const auto state = supervisor.state_of(follower.id);
    const bool ended = !state || *state == RankState::kExited;
    if (follower.writer->client_gone()) return false;
    std::size_t sent = 0;
    for (std::string bytes; !(bytes = follower.reader.read()).empty();) {
      if (!follower.writer->write(bytes)) return false;
      sent += bytes.size();
      if (sent >= kFeedBytesMax) return more = true;
    }
    if (follower.follow && !ended) return true;
    follower.writer->finish();
    return false;
  }

  void feed_all(std::stop_token stop) {
    std::unique_lock lock(mutex);
    while (!stop.stop_requested()) {
      if (!changed.wait(lock, stop, [this] { return !followers.empty(); })) return;
      std::list<Follower> served;
      served.swap(followers);
      lock.unlock();
      bool more = false;
      served.remove_if([&](Follower& follower) { return !feed(follower, more); });
      lock.lock();
      followers.splice(followers.begin(), served);
      if (!followers.empty())
        changed.wait_for(lock, stop, std::chrono::milliseconds(more ? kFeedPauseMs : kFollowMs),
                         [] { return false; });
    }
  }
};

LogServer::LogServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

LogServer::~LogServer() {
  state_->feeder.request_stop();
  if (state_->feeder.joinable()) state_->feeder.join();
  state_->followers.clear();
  state_->server.reset();
}

int LogServer::port() const { return state_->server->port(); }

Result<std::unique_ptr<LogServer>> LogServer::start(const DataDirectory& data, const Supervisor& supervisor,
                                                    std::string token, Results results,
                                                    const std::function<void(http::Router&)>& more) {
  auto state = std::unique_ptr<State>(
      new State{data, supervisor, std::move(token), std::move(results), {}, {}, {}, nullptr, {}});
  State* inside = state.get();
  http::Router router;
  router.add("GET", "/logs", [inside](const http::Request& request, const http::ResponseWriterPtr& writer) {
    inside->handle(request, writer);
  });
  router.add("GET", "/results", [inside](const http::Request& request, const http::ResponseWriterPtr& writer) {
    inside->send_results(request, writer);
  });
  if (more) more(router);
  http::ServerOptions options;
  options.threads = 4;
  options.body_directory = data.path();
  CAPSTAN_TRY(state->server, http::Server::start(options, router.handler()));
  state->feeder = std::jthread([inside](std::stop_token stop) { inside->feed_all(stop); });
  return std::unique_ptr<LogServer>(new LogServer(std::move(state)));
}

}  // namespace capstan::worker

// filesystem.Filesystem: look, make, move, remove, watch.
#include <fmt/chrono.h>

#include <algorithm>

#include "agents/e2b/connect.h"
#include "agents/e2b/e2b.h"
#include "agents/sessions/paths.h"
#include "base/text.h"

namespace capstan::agents::e2b {
namespace {

constexpr std::size_t kEntriesMax = 10'000;
constexpr std::int64_t kDepthMax = 64;

std::string permissions_of(const sandbox::InsideEntry& entry) {
  std::string out(1, entry.type == 'd' ? 'd' : entry.type == 'l' ? 'L' : '-');
  for (int bit = 8; bit >= 0; --bit) out += (entry.mode >> bit & 1) != 0 ? "xwr"[bit % 3] : '-';
  return out;
}

// `path` lies inside (/work/…).
Json entry_json(const sandbox::InsideEntry& entry, const std::string& path) {
  const std::string shown = shown_path(path);
  const std::string_view type = entry.type == 'f'   ? "FILE_TYPE_FILE"
                                : entry.type == 'd' ? "FILE_TYPE_DIRECTORY"
                                : entry.type == 'l' ? "FILE_TYPE_SYMLINK"
                                                    : "FILE_TYPE_UNSPECIFIED";
  return Json::object({{"name", shown.substr(shown.rfind('/') + 1)},
                       {"type", type},
                       {"path", shown},
                       {"size", std::to_string(entry.bytes)},
                       {"mode", entry.mode},
                       {"permissions", permissions_of(entry)},
                       {"owner", kUser},
                       {"group", kUser},
                       {"modifiedTime", fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                                                    fmt::gmtime(static_cast<std::time_t>(entry.modified_ms / 1000)),
                                                    entry.modified_ms % 1000)}});
}

Result<std::string> path_of(const Json& message, std::string_view member) {
  const auto path = message.get_string(member);
  if (!path) return fail(Code::kInvalid, "the request needs a {}", member);
  return path_inside(*path);
}

Result<Json> described(const Session& session, const std::string& path) {
  CAPSTAN_TRY(const auto entry, sandbox::stat_inside(session.root_fd(), path));
  return Json::object({{"entry", entry_json(entry, path)}});
}

Result<Json> stat(Session& session, const Json& message) {
  CAPSTAN_TRY(const std::string path, path_of(message, "path"));
  return described(session, path);
}

Result<Json> move(Session& session, const Json& message) {
  CAPSTAN_TRY(const std::string from, path_of(message, "source"));
  CAPSTAN_TRY(const std::string to, path_of(message, "destination"));
  CAPSTAN_CHECK(session.rename(from, to));
  return described(session, to);
}

Result<Json> remove(Session& session, const Json& message) {
  CAPSTAN_TRY(const std::string path, path_of(message, "path"));
  CAPSTAN_CHECK(session.remove(path));
  return Json::object();
}

Result<void> list_below(const Session& session, const std::string& path, std::int64_t depth, Json& out) {
  CAPSTAN_TRY(auto entries, sandbox::list_inside(session.root_fd(), path, kEntriesMax));
  std::ranges::sort(entries, {}, &sandbox::InsideEntry::name);
  for (const auto& entry : entries) {
    if (out.size() >= kEntriesMax) return fail(Code::kExhausted, "more than {} entries", kEntriesMax);
    const std::string at = (path == "/" ? "" : path) + "/" + entry.name;
    out.push_back(entry_json(entry, at));
    if (entry.type == 'd' && depth > 1) CAPSTAN_CHECK(list_below(session, at, depth - 1, out));
  }
  return {};
}

Result<Json> list(Session& session, const Json& message) {
  CAPSTAN_TRY(const std::string path, path_of(message, "path"));
  const std::int64_t depth = std::clamp<std::int64_t>(message.get_int("depth").value_or(1), 1, kDepthMax);
  Json entries = Json::array();
  CAPSTAN_CHECK(list_below(session, path, depth, entries));
  return Json::object({{"entries", std::move(entries)}});
}

// Connect's own code for what the SDKs look for, which our codes do not tell from other conflicts.
void make_directory(const http::Request& request, const http::ResponseWriterPtr& writer, SessionManager& manager) {
  const auto done = [&]() -> Result<Json> {
    CAPSTAN_TRY(const SessionPtr session, session_of(request, manager));
    CAPSTAN_TRY(const Json message, read_message(request));
    CAPSTAN_TRY(const std::string path, path_of(message, "path"));
    if (const auto entry = sandbox::stat_inside(session->root_fd(), path))
      return fail(Code::kConflict, "{} exists", shown_path(path));
    CAPSTAN_CHECK(session->make_directory(path));
    return described(*session, path);
  }();
  if (done) return writer->respond(http::Response::json(200, *done));
  if (done.error().code == Code::kConflict)
    return writer->respond(refusal(request, 409, "already_exists", done.error().message));
  writer->respond(refusal(request, done.error()));
}

}  // namespace

void add_filesystem_routes(http::Router& router, SessionManager& manager) {
  const std::string service = "/filesystem.Filesystem/";
  add_unary(router, manager, service + "Stat", stat);
  add_unary(router, manager, service + "Move", move);
  add_unary(router, manager, service + "Remove", remove);
  add_unary(router, manager, service + "ListDir", list);
  router.add("POST", service + "MakeDir",
             [&manager](const http::Request& request, const http::ResponseWriterPtr& writer) {
               make_directory(request, writer, manager);
             });
}

}  // namespace capstan::agents::e2b

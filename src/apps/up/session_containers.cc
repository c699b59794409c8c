#include "apps/up/session_containers.h"

#include <algorithm>
#include <ctime>

#include "apps/up/session_code.h"
#include "base/text.h"

namespace capstan::apps {
namespace {

using gateway::Caller;

constexpr std::string_view kHome = "/home/user/";  // where code works
constexpr int kDepth = 8;                           // of directories below it

// "2026-11-24T09:00:30.000Z" in seconds; 0 for anything else.
std::int64_t seconds_of(const std::string& text) {
  std::tm parts{};
  return ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr ? 0 : ::timegm(&parts);
}

std::optional<gateway::openai::ContainerHost::Container> container_of(const Json& session) {
  const Json* words = session.find("metadata");
  const auto id = words == nullptr ? std::nullopt : words->get_string(kContainerWord);
  if (!id) return std::nullopt;
  const std::int64_t ends = seconds_of(session.get_string("endAt").value_or(""));
  return gateway::openai::ContainerHost::Container{.id = *id,
                                                   .name = words->get_string(kContainerNameWord).value_or(""),
                                                   .created_at = seconds_of(session.get_string("startedAt").value_or("")),
                                                   .last_active_at = ends - kIdleS};
}

std::optional<gateway::openai::ContainerHost::File> file_of(const Json& entry) {
  const std::string path = entry.get_string("path").value_or("");
  if (entry.get_string("type") != "FILE_TYPE_FILE" || !path.starts_with(kHome)) return std::nullopt;
  return gateway::openai::ContainerHost::File{.path = path.substr(kHome.size()),
                                              .bytes = parse_int(entry.get_string("size").value_or("")).value_or(0),
                                              .modified_at = seconds_of(entry.get_string("modifiedTime").value_or(""))};
}

}  // namespace

// Of the service that a sandbox has for its files.
Result<Json> SessionContainers::call(const Caller& caller, const SessionWire::Sandbox& sandbox, std::string_view method,
                                     const std::string& path, int depth) {
  Json message = Json::object({{"path", std::string(kHome) + path}});
  if (depth > 0) message["depth"] = depth;
  CAPSTAN_TRY(const http::Response answer,
              wire_.ask(caller, sandbox,
                        {.method = "POST",
                         .target = fmt::format("/filesystem.Filesystem/{}", method),
                         .headers = {{"content-type", "application/json"}},
                         .body = message.dump()}));
  return Json::parse(answer.body);
}

Result<SessionContainers::Container> SessionContainers::create(const Caller& caller, const std::string& id,
                                                               const std::string& name) {
  Json words = Json::object({{std::string(kContainerWord), id}, {std::string(kContainerNameWord), name}});
  const Json body = Json::object({{"templateID", "base"}, {"timeout", kIdleS}, {"metadata", std::move(words)}});
  CAPSTAN_CHECK(wire_.ask(caller, {.method = "POST",
                                   .target = "/v2/sandboxes",
                                   .headers = {{"content-type", "application/json"}},
                                   .body = body.dump()}));
  return about(caller, id);
}

Result<std::vector<SessionContainers::Container>> SessionContainers::list(const Caller& caller) {
  std::vector<Container> out;
  for (std::string next = "";;) {
    CAPSTAN_TRY(const http::Response answer, wire_.ask(caller, {.target = "/v2/sandboxes?nextToken=" + next}));
    CAPSTAN_TRY(const Json sessions, Json::parse(answer.body));
    for (const Json& session : sessions.items()) {
      if (auto container = container_of(session)) out.push_back(*std::move(container));
    }
    next = answer.headers.get("x-next-token");
    if (next.empty()) break;
  }
  std::ranges::stable_sort(out, {}, &Container::created_at);
  return out;
}

Result<SessionContainers::Container> SessionContainers::about(const Caller& caller, const std::string& id) {
  CAPSTAN_TRY(const Json session, wire_.session_of(caller, id));
  return container_of(session).value_or(Container{});
}

Result<void> SessionContainers::remove(const Caller& caller, const std::string& id) {
  CAPSTAN_TRY(const Json session, wire_.session_of(caller, id));
  CAPSTAN_CHECK(
      wire_.ask(caller, {.method = "DELETE", .target = "/sandboxes/" + session.get_string("sandboxID").value_or("")}));
  return {};
}

Result<std::vector<SessionContainers::File>> SessionContainers::files(const Caller& caller, const std::string& id) {
  CAPSTAN_TRY(const auto sandbox, wire_.sandbox_of(caller, id));
  CAPSTAN_TRY(const Json listed, call(caller, sandbox, "ListDir", "", kDepth));
  std::vector<File> out;
  const Json* entries = listed.find("entries");
  if (entries == nullptr || !entries->is_array()) return out;
  for (const Json& entry : entries->items()) {
    if (auto file = file_of(entry)) out.push_back(*std::move(file));
  }
  return out;
}

Result<SessionContainers::File> SessionContainers::write(const Caller& caller, const std::string& id, const std::string& path,
                                                         std::string_view bytes) {
  CAPSTAN_TRY(const auto sandbox, wire_.sandbox_of(caller, id));
  CAPSTAN_CHECK(wire_.ask(caller, sandbox,
                          {.method = "POST",
                           .target = "/files?path=" + http::percent_encode(std::string(kHome) + path),
                           .headers = {{"content-type", "application/octet-stream"}},
                           .body = std::string(bytes)}));
  CAPSTAN_TRY(const Json described, call(caller, sandbox, "Stat", path));
  const Json* entry = described.find("entry");
  const auto file = entry == nullptr ? std::nullopt : file_of(*entry);
  if (!file) return fail(Code::kUnavailable, "the sandboxes' host does not tell of {}", path);
  return *file;
}

Result<std::string> SessionContainers::read(const Caller& caller, const std::string& id, const std::string& path) {
  CAPSTAN_TRY(const auto sandbox, wire_.sandbox_of(caller, id));
  CAPSTAN_TRY(http::Response answer,
              wire_.ask(caller, sandbox, {.target = "/files?path=" + http::percent_encode(std::string(kHome) + path)}));
  return std::move(answer.body);
}

Result<void> SessionContainers::remove_file(const Caller& caller, const std::string& id, const std::string& path) {
  CAPSTAN_TRY(const auto sandbox, wire_.sandbox_of(caller, id));
  CAPSTAN_CHECK(call(caller, sandbox, "Stat", path));  // so that its absence is told
  CAPSTAN_CHECK(call(caller, sandbox, "Remove", path));
  return {};
}

}  // namespace capstan::apps

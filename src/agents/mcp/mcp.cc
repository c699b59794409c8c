#include "agents/mcp/mcp.h"

#include <algorithm>
#include <atomic>

#include "base/build_id.h"
#include "base/file.h"

namespace capstan::agents::mcp {
namespace {

constexpr std::string_view kVersions[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};
constexpr std::string_view kSessionHeader = "mcp-session-id";
constexpr int kClientIdBytes = 16;
constexpr int kParseError = -32700, kInvalidRequest = -32600, kNoMethod = -32601, kInvalidParams = -32602;

Json id_of(const Json& message) {
  const Json* id = message.find("id");
  return id != nullptr ? *id : Json();
}

http::Response error_response(int status, const Json& id, int code, std::string_view text) {
  return http::Response::json(status, Json::object({{"jsonrpc", "2.0"},
                                                    {"id", id},
                                                    {"error", Json::object({{"code", code}, {"message", text}})}}));
}

http::Response result_response(const Json& id, Json result) {
  return http::Response::json(200, Json::object({{"jsonrpc", "2.0"}, {"id", id}, {"result", std::move(result)}}));
}

Json initialize_result(const Json& message) {
  const Json* params = message.find("params");
  const std::string wanted = params != nullptr ? params->get_string("protocolVersion").value_or("") : "";
  const bool known = std::ranges::find(kVersions, wanted) != std::end(kVersions);
  return Json::object(
      {{"protocolVersion", known ? std::string_view(wanted) : kVersions[0]},
       {"capabilities", Json::object({{"tools", Json::object()}})},
       {"serverInfo", Json::object({{"name", "capstan"}, {"title", "Capstan sandboxes"}, {"version", build_id()}})},
       {"instructions",
        "Each session has an isolated Linux sandbox without network. Files below /home/user stay between calls; "
        "Python variables stay between run_code calls."}});
}

}  // namespace

struct McpServer::Client {
  Owner owner;
  std::string template_name = "base";
  bool foreign = false;  // the sandbox is another's, named at initialize
  std::atomic<std::int64_t> used_ms{0};
  std::mutex mutex;
  SessionPtr session;
  std::map<std::string, Cancel> running;  // by the request's id, as JSON
};

void McpServer::add_routes(http::Router& router) {
  router.add("POST", "/mcp", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    post(request, writer);
  });
  router.add("GET", "/mcp", [](const http::Request&, const http::ResponseWriterPtr& writer) {
    http::Response answer = error_response(405, nullptr, kInvalidRequest, "this server sends nothing unasked; POST");
    answer.headers.set("allow", "POST, DELETE");
    writer->respond(std::move(answer));
  });
  router.add("DELETE", "/mcp", [this](const http::Request& request, const http::ResponseWriterPtr& writer) {
    const auto client = find(request);
    if (!client) return writer->respond(error_response(404, nullptr, kInvalidRequest, client.error().message));
    {
      const std::lock_guard lock(mutex_);
      clients_.erase(request.headers.get(kSessionHeader));
    }
    const std::lock_guard lock((*client)->mutex);
    if ((*client)->session && !(*client)->foreign) (void)manager_.end((*client)->session->id(), (*client)->owner);
    writer->respond({.status = 204});
  });
}

void McpServer::drop_idle() {
  const std::int64_t before_ms = unix_ms() - kIdleMs;
  std::erase_if(clients_, [&](const auto& one) { return one.second->used_ms < before_ms; });
}

Result<std::string> McpServer::open(const http::Request& request) {
  auto client = std::make_shared<Client>();
  client->owner = owner_of(request);
  client->used_ms = unix_ms();
  if (const auto name = request.query_value("template")) client->template_name = *name;
  if (const auto sandbox = request.query_value("sandbox")) {
    CAPSTAN_TRY(client->session, manager_.find(*sandbox, client->owner));
    client->foreign = true;
  } else {
    CAPSTAN_CHECK(manager_.check());
  }
  const std::string id = random_hex(kClientIdBytes);
  const std::lock_guard lock(mutex_);
  drop_idle();
  if (clients_.size() >= kClientsMax) return fail(Code::kExhausted, "{} MCP sessions, the most that may", kClientsMax);
  clients_[id] = std::move(client);
  return id;
}

Result<McpServer::ClientPtr> McpServer::find(const http::Request& request) {
  const std::string id = request.headers.get(kSessionHeader);
  const std::lock_guard lock(mutex_);
  const auto found = clients_.find(id);
  if (found == clients_.end() || found->second->owner.project != owner_of(request).project)
    return fail(Code::kNotFound, "there is no MCP session '{}'; initialize a new one", id);
  found->second->used_ms = unix_ms();
  return found->second;
}

// A sandbox that ended meanwhile is replaced; its files are gone, and the model sees that.
Result<SessionPtr> McpServer::session_of(Client& client) {
  const std::lock_guard lock(client.mutex);
  if (client.session && client.session->state() == Session::State::kEnded && !client.foreign) client.session = nullptr;
  if (!client.session) {
    CAPSTAN_TRY(client.session, manager_.create({.owner = client.owner,
                                                 .template_name = client.template_name,
                                                 .metadata = {{"made-by", "mcp"}},
                                                 .timeout_ms = kIdleMs,
                                                 .sliding = true}));
  }
  CAPSTAN_CHECK(client.session->wake());
  return client.session;
}

void McpServer::post(const http::Request& request, const http::ResponseWriterPtr& writer) {
  const auto parsed = Json::parse(request.body);
  if (!parsed) return writer->respond(error_response(400, nullptr, kParseError, parsed.error().message));
  const Json& message = *parsed;
  if (!message.is_object() || message.get_string("jsonrpc") != "2.0")
    return writer->respond(error_response(400, nullptr, kInvalidRequest, "one JSON-RPC 2.0 message, no batch"));
  const std::string method = message.get_string("method").value_or("");
  const Json id = id_of(message);
  if (method == "initialize") {
    const auto opened = open(request);
    if (!opened) return writer->respond(error_response(200, id, kInvalidRequest, opened.error().message));
    http::Response answer = result_response(id, initialize_result(message));
    answer.headers.set(kSessionHeader, *opened);
    return writer->respond(std::move(answer));
  }
  const std::string version = request.headers.get("mcp-protocol-version");
  if (!version.empty() && std::ranges::find(kVersions, version) == std::end(kVersions))
    return writer->respond(error_response(400, id, kInvalidRequest, "unknown MCP-Protocol-Version " + version));
  if (request.headers.find(kSessionHeader) == nullptr)
    return writer->respond(error_response(400, id, kInvalidRequest, "initialize first, then send Mcp-Session-Id"));
  const auto client = find(request);
  if (!client) return writer->respond(error_response(404, id, kInvalidRequest, client.error().message));
  if (method == "notifications/cancelled") {
    const Json* params = message.find("params");
    const Json* which = params != nullptr ? params->find("requestId") : nullptr;
    Cancel cancel;  // called without the mutex, which its end takes
    {
      const std::lock_guard lock((*client)->mutex);
      const auto found = which != nullptr ? (*client)->running.find(which->dump()) : (*client)->running.end();
      if (found != (*client)->running.end()) cancel = found->second;
    }
    if (cancel) cancel();
  }
  if (method.empty() || id.is_null()) return writer->respond({.status = 202});  // a notification or an answer
  if (method == "ping") return writer->respond(result_response(id, Json::object()));
  if (method == "tools/list") return writer->respond(result_response(id, Json::object({{"tools", tool_list()}})));
  if (method == "tools/call") return call(*client, message, writer);
  writer->respond(error_response(200, id, kNoMethod, "there is no method " + method));
}

void McpServer::call(const ClientPtr& client, const Json& message, const http::ResponseWriterPtr& writer) {
  const Json id = id_of(message);
  const Json* params = message.find("params");
  const std::string name = params != nullptr ? params->get_string("name").value_or("") : "";
  if (!is_tool(name)) return writer->respond(error_response(200, id, kInvalidParams, "there is no tool '" + name + "'"));
  const Json* given = params->find("arguments");
  const auto session = session_of(*client);
  if (!session) return writer->respond(result_response(id, failed_result(session.error().message)));
  const std::string key = id.dump();
  const auto answered = std::make_shared<std::atomic<bool>>(false);  // shared by the end and a cancellation
  const auto done = [client, key, id, writer, answered](Json result) {
    if (answered->exchange(true)) return;
    writer->respond(result_response(id, std::move(result)));
    const std::lock_guard lock(client->mutex);
    client->running.erase(key);
  };
  Cancel cancel = call_tool(*session, name, given != nullptr ? *given : Json::object(), done);
  writer->on_client_gone(cancel);
  const std::lock_guard lock(client->mutex);
  if (!*answered) client->running[key] = std::move(cancel);
}

}  // namespace capstan::agents::mcp

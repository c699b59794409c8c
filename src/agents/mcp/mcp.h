// A Model Context Protocol server over streamable HTTP: an MCP session has a sandbox of its own and tools to use it.
//
//   McpServer server(manager);   server.add_routes(router);     // /mcp
//
// initialize gives a session id (Mcp-Session-Id); the sandbox is made by the first tool call, ends kIdleMs after the
// last one, or with DELETE. `/mcp?sandbox=ID` at initialize uses that sandbox instead and leaves it alive; ?template=NAME
// makes it from that template. Source: modelcontextprotocol.io, specification 2025-11-25; older versions since 2024-11-05
// are spoken, too. Batches are refused; the server sends nothing unasked, so GET is answered 405.
//
// Threads: handlers of the server.  Bounds: kClientsMax.  Failure: JSON-RPC errors for the protocol's faults, results
// with isError for a tool's.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "agents/mcp/tools.h"
#include "agents/sessions/session_manager.h"
#include "http/server.h"

namespace capstan::agents::mcp {

inline constexpr std::size_t kClientsMax = 4'096;
inline constexpr std::int64_t kIdleMs = 30LL * 60 * 1000;

class McpServer {
 public:
  explicit McpServer(SessionManager& manager) : manager_(manager) {}  // which outlives it
  void add_routes(http::Router& router);

 private:
  struct Client;
  using ClientPtr = std::shared_ptr<Client>;  // shared by the table and calls under way

  void post(const http::Request& request, const http::ResponseWriterPtr& writer);
  void call(const ClientPtr& client, const Json& message, const http::ResponseWriterPtr& writer);
  Result<std::string> open(const http::Request& request);
  Result<ClientPtr> find(const http::Request& request);
  Result<SessionPtr> session_of(Client& client);
  void drop_idle();  // under mutex_

  SessionManager& manager_;
  std::mutex mutex_;
  std::map<std::string, ClientPtr> clients_;
};

}  // namespace capstan::agents::mcp

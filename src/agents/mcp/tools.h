// The tools that an MCP client may call in its sandbox: run_command, run_code, read_file, write_file, list_files.
//
//   call_tool(session, "run_command", Json::object({{"command", "ls"}}), [](Json result) { … });
//
// A result is MCP's: content, structuredContent (as outputSchema says), isError. What the caller did wrong in the
// arguments is a result, too, so that a model can read and mend it. Threads: any; `done` is called once, on the loop or
// the caller's thread. Bounds: kOutputBytesMax of each stream kept, kTimeoutSMax, kReadBytesMax.
#pragma once

#include <functional>
#include <string>

#include "agents/sessions/session.h"
#include "base/json.h"

namespace capstan::agents::mcp {

inline constexpr std::size_t kOutputBytesMax = 256u << 10;
inline constexpr std::int64_t kTimeoutSDefault = 60, kTimeoutSMax = 3'600;
inline constexpr std::int64_t kReadBytesMax = 1 << 20;

Json tool_list();
bool is_tool(const std::string& name);

// Ends the call that is under way; its result then says so.
using Cancel = std::function<void()>;
using Done = std::function<void(Json result)>;
Cancel call_tool(const SessionPtr& session, const std::string& name, const Json& arguments, Done done);
Json failed_result(std::string_view message);

}  // namespace capstan::agents::mcp

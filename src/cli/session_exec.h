// A sandbox's own calls from the command line: commands, code, files. Private to cli/.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "cli/sessions_commands.h"

namespace capstan::cli {

// Runs a command and passes its output on; what it read of ours goes in. The command's exit code.
int exec_in_session(const Globals& globals, const SessionExecOptions& options, const Json& env);

using OnPiece = std::function<bool(std::string_view piece)>;
// A POST to the sandbox whose answer is read piece by piece.
Result<void> stream_in_session(const Globals& globals, const std::string& id, const std::string& path, std::string body,
                               const std::string& content_type, const OnPiece& on_piece);
Result<Json> put_into_session(const Globals& globals, const std::string& id, const std::string& path, std::string bytes);
Result<void> get_from_session(const Globals& globals, const std::string& id, const std::string& path,
                              const OnPiece& on_piece);

}  // namespace capstan::cli

// session: sandboxes from the command line. Private to cli/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace CLI {
class App;
}

namespace capstan::cli {

inline constexpr std::int64_t kTimeoutSDefault = 300;
struct SessionCreateOptions {
  std::string form = "base";
  std::int64_t timeout_s = kTimeoutSDefault;
  std::vector<std::string> env = {}, metadata = {};  // NAME=VALUE
  std::vector<std::string> allow = {};               // hosts it may reach, of those that the template permits
  bool no_network = false;
};
int session_create(const Globals& globals, const SessionCreateOptions& options);
int session_list(const Globals& globals);

struct SessionExecOptions {
  std::string id;
  std::vector<std::string> command;  // one word: for bash -lc
  std::string cwd = {};
  std::vector<std::string> env = {};
  std::int64_t timeout_s = 0;  // 0: until it ends
  bool input = false;          // standard input goes to it
  bool terminal = false;       // it gets a terminal, as ours is
};
// Its exit code is the command's.
int session_exec(const Globals& globals, const SessionExecOptions& options);

struct SessionCodeOptions {
  std::string id, code;  // "-": from standard input
};
int session_code(const Globals& globals, const SessionCodeOptions& options);

struct SessionCopyOptions {
  std::string from, to;  // one is ID:PATH
};
int session_copy(const Globals& globals, const SessionCopyOptions& options);

int session_kill(const Globals& globals, const std::vector<std::string>& ids);
int session_pause(const Globals& globals, const std::string& id);
struct SessionTimeOptions {
  std::string id;
  std::optional<std::int64_t> timeout_s = {};
};
int session_resume(const Globals& globals, const SessionTimeOptions& options);
int session_timeout(const Globals& globals, const SessionTimeOptions& options);
struct SessionSnapshotOptions {
  std::string id, name = {};
};
int session_snapshot(const Globals& globals, const SessionSnapshotOptions& options);
int session_templates(const Globals& globals);

void add_sessions_commands(CLI::App& app, Globals& globals, int& exit_code);

}  // namespace capstan::cli

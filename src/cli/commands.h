// One function per command; each returns the exit code. Private to cli/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace capstan::cli {

struct ApplyOptions {
  std::string file;  // "-": standard input
  bool dry_run = false;
  bool wait = false;  // until what it names has ended
};
int apply(const Globals& globals, const ApplyOptions& options);

struct GetOptions {
  std::string name;  // empty: all
  std::string kind;
  std::string state;
  std::string label;
  bool follow = false;
  bool names = false;  // only names, one a line
};
int get(const Globals& globals, const GetOptions& options);
int describe(const Globals& globals, const std::string& name);
int explain(const Globals& globals, const std::string& name);
int cancel(const Globals& globals, const std::vector<std::string>& names);
struct ScaleOptions {
  std::string name;
  std::int64_t replicas = 0;
};
int scale(const Globals& globals, const ScaleOptions& options);
int status(const Globals& globals);
// Until each has ended, with a bar; kFailed if one has not succeeded.
int wait(const Globals& globals, const std::vector<std::string>& names);

struct ResultsOptions {
  std::string name;
  bool failed = false;  // only those that did not succeed
};
int results(const Globals& globals, const ResultsOptions& options);

struct LogOptions {
  std::string name;
  std::int64_t rank = 0;
  std::int64_t attempt = 0;  // 0: the latest
  std::int64_t tail_bytes = 0;
  bool follow = false;
};
int logs(const Globals& globals, const LogOptions& options);

struct EventOptions {
  std::int64_t since = 0;
  bool follow = false;
};
int events(const Globals& globals, const EventOptions& options);

struct RunOptions {
  std::string name;
  std::int64_t ranks = 1;
  std::string cpus;
  std::string memory;
  std::vector<std::string> env;
  std::vector<std::string> command;
  bool detach = false;
};
// A one-line job: submits it, shows its output, ends with its exit code (1 if it failed).
int run(const Globals& globals, const RunOptions& options);

struct ChatOptions {
  std::string model;    // empty: the only one, or abacus
  std::string message;  // empty: a conversation at the terminal
  bool python = false;  // offer the python tool and run it here with python3 -I after asking
  bool no_reasoning = false;
};
int chat(const Globals& globals, const ChatOptions& options);

int down(const Globals& globals);

// The text of a file, or of standard input if it is "-".
Result<std::string> read_input(const std::string& file);

}  // namespace capstan::cli

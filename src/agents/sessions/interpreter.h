// Code in contexts: each a long-lived Python in the session, which keeps what cells define.
//
//   session.interpreter().execute({.code = "x = 1\nx + 1"}, sink);   // sink gets an event a line, then on_done
//   CAPSTAN_TRY(CodeContext context, session.interpreter().add("python", "/home/user"));
//
// Events are the JSON lines that kernel.py describes, in the terms of E2B's code interpreter. The default context is made
// by the first cell without one. Cells of a context run one after the other. A context whose Python has ended (exit,
// memory) says so in its cell's events, and begins afresh with the next.
//
// Threads: every method from any thread; sinks are called on the loop.  Bounds: kContextsMax, kCellsMax waiting in a
// context, kLineBytesMax an event.  Failure: kInvalid (a language that is not python), kNotFound, kExhausted.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "agents/sessions/session.h"
#include "base/json.h"

namespace capstan::agents {

inline constexpr std::size_t kContextsMax = 20;
inline constexpr std::size_t kCellsMax = 100;
inline constexpr std::size_t kLineBytesMax = 64u << 20;

class CodeSink {
 public:
  virtual ~CodeSink() = default;
  virtual void on_line(std::string_view json) = 0;  // without its line's end
  virtual void on_done() = 0;                       // last
  virtual std::size_t backlog_bytes() { return 0; }
  virtual void when_caught_up(std::function<void()> callback) { callback(); }
};
using SinkPtr = std::shared_ptr<CodeSink>;  // shared by the context and who reads the answer

struct CodeContext {
  std::string id, language = "python", cwd;
};

struct Cell {
  std::string code = {};
  std::string context = {};   // empty: the default one
  std::string language = {};  // empty: python
  Words env = {};             // during this cell
};

class Interpreter {
 public:
  explicit Interpreter(Session& session) : session_(session) {}  // which outlives it
  ~Interpreter();

  Result<void> execute(const Cell& cell, SinkPtr sink);
  // The sink's reader has left: nothing more reaches it, and its cell, if it runs, is interrupted.
  void abandon(const SinkPtr& sink);

  // The default context's Python before anybody wants it; when the session begins, its environment becomes the session's.
  Result<void> start_ahead();
  void begin();

  Result<CodeContext> add(const std::string& language, const std::string& cwd);
  std::vector<CodeContext> list() const;
  Result<void> remove(const std::string& id);
  Result<void> restart(const std::string& id);

 private:
  class Kernel;
  struct Context {
    CodeContext about;
    std::shared_ptr<Kernel> kernel;  // shared with the process that it listens to
  };
  Result<std::shared_ptr<Kernel>> kernel_of(Context& context);  // under mutex_
  Result<Context*> find(const std::string& id);                 // under mutex_
  Context& default_context();                                   // under mutex_

  Session& session_;
  mutable std::mutex mutex_;
  std::map<std::string, Context> contexts_;
  std::vector<std::string> ahead_;  // the environment of what was started ahead
};

}  // namespace capstan::agents

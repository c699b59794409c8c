// A Python interpreter that lives in a sandbox and keeps its variables from one piece of code to the next, as
// a notebook does.
//
//   Interpreter python(*box, limits);
//   Outcome outcome = python.run("x = 6 * 7\nx", 60'000);      // "42"
//
// One command of the sandbox, started with the first run. Code that runs too long is interrupted, then, if it
// will not stop, killed with the interpreter; the next run starts another and says so. What a program writes
// to descriptors 1 and 2 counts as output, children's too.  Threads: one owner; kill of the sandbox from any.
// Failure: only the sandbox's own (kUnavailable); what the code does wrong is an Outcome.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "agents/loop/step.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace capstan::agents::loop {

class Interpreter {
 public:
  Interpreter(sandbox::Sandbox& box, const sandbox::CommandLimits& limits) : box_(box), limits_(limits) {}
  ~Interpreter() { stop(); }
  Result<Outcome> run(const std::string& code, std::int64_t time_ms);
  void stop();

 private:
  Result<void> start();
  Result<Outcome> ended(bool too_long);

  sandbox::Sandbox& box_;
  sandbox::CommandLimits limits_;
  std::unique_ptr<sandbox::Command> command_;
  int channel_ = -1;
  std::string pending_;  // what came of the next line
  bool lost_state_ = false;  // an earlier interpreter was killed: the model must be told
};

}  // namespace capstan::agents::loop

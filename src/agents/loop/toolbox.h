// The tools of an agent and the programs that judge it, all inside one sandbox that lasts for an episode.
//
//   CAPSTAN_TRY(auto box, Toolbox::open(launcher, spec.sandbox));
//   CAPSTAN_TRY(Outcome outcome, box->call({.name = "run_command", .arguments = R"({"command":"ls"})"},
//   60'000)); CAPSTAN_TRY(Outcome verdict, box->judge(StepKind::kCheck, spec.check->program, facts, 60'000));
//
// Each command runs in a cgroup of its own below the sandbox's, with limits of its own; Python keeps its
// variables and is therefore one command for the whole episode, each of whose runs has a time limit. What a
// model does wrong (bad arguments, a missing file, a loop) is an Outcome that tells it what would be right.
// Output is UTF-8 and at most call_output_bytes, with the middle left out.
//
// Threads: one owner; kill() from any.  Failure: kUnavailable (the sandbox is gone), kUnsupported, kInvalid
// (limits).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "agents/loop/interpreter.h"
#include "agents/loop/spec.h"
#include "agents/loop/step.h"
#include "sandbox/launcher.h"

namespace capstan::agents::loop {

class Toolbox {
 public:
  static Result<std::unique_ptr<Toolbox>> open(sandbox::Launcher& launcher, const SandboxOptions& options);

  // At most time_ms, and at most what the options allow a call.
  Result<Outcome> call(const ToolCall& call, std::int64_t time_ms);
  // A check or a scorer; before a scorer, whatever else still runs in the sandbox is killed.
  Result<Outcome> judge(StepKind kind, const Program& program, const Json& facts, std::int64_t time_ms);
  // A fresh sandbox in place of this one.
  Result<void> restart();
  // Of all sandboxes of this toolbox so far.
  sandbox::Usage usage() const;
  void kill();

 private:
  Toolbox(sandbox::Launcher& launcher, const SandboxOptions& options)
      : launcher_(launcher), options_(options) {}
  Result<void> create();
  Result<Outcome> run_python(const Json& arguments, std::int64_t time_ms);
  Result<Outcome> run_command(const std::vector<std::string>& argv, std::int64_t time_ms, int stdin_fd = -1);
  Outcome read_file(const Json& arguments) const;
  Outcome write_file(const Json& arguments) const;
  sandbox::CommandLimits limits(std::int64_t time_ms) const;
  std::int64_t cpu_us() const;

  sandbox::Launcher& launcher_;
  SandboxOptions options_;
  std::unique_ptr<sandbox::Sandbox> box_;
  std::unique_ptr<Interpreter> python_;  // in box_, so behind it
  sandbox::Usage before_;  // of sandboxes that are gone
  std::mutex mutex_;       // guards box_ against kill()
  bool killed_ = false;
};

// Valid UTF-8, at most `bytes_max` long: beginning and end, with a note of what was left out between.
std::string clip(std::string_view text, std::size_t bytes_max, bool& truncated);

}  // namespace capstan::agents::loop

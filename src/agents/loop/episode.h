// One episode: model turns and tool calls until the model answers and the answer passes its check, or a
// budget is used up; then the score.
//
//   CAPSTAN_TRY(End end, run_episode(spec, world, [&](const Step& step) { recording.add(step); }));
//
// Everything that an episode needs of the outside is a World, time included, so the same code runs live and
// replays a recording; given the same answers of its World, it comes to the same steps.  Threads: one.
// Failure: only the World's (the model's server or the sandbox is gone); whatever the model does ends in an
// End.
#pragma once

#include <cstdint>
#include <functional>

#include "agents/loop/request.h"
#include "agents/loop/spec.h"
#include "agents/loop/step.h"
#include "sandbox/spec.h"

namespace capstan::agents::loop {

class World {
 public:
  virtual ~World() = default;
  virtual Result<ModelReply> ask(const Json& body, std::int64_t time_ms) = 0;
  virtual Result<Outcome> call(const ToolCall& call, std::int64_t time_ms) = 0;
  virtual Result<Outcome> judge(StepKind kind, const Program& program, const Json& facts,
                                std::int64_t time_ms) = 0;
  virtual Result<void> restart() = 0;  // tools begin anew
  virtual std::int64_t now_ms() = 0;   // since the episode began
  virtual sandbox::Usage usage() = 0;
};

// `on_step` gets each step when it has ended.
Result<End> run_episode(const AgentSpec& spec, World& world, const std::function<void(const Step&)>& on_step);

// The number in the last line of a scorer's output that is not empty.
std::optional<double> parse_score(const Outcome& outcome);

}  // namespace capstan::agents::loop

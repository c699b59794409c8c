// Runs a recorded episode again and compares it with its recording, step by step.
//
//   CAPSTAN_TRY(ReplayReport report, replay(recording, {.tools = &*toolbox}));
//   report.same()                                     // every step, and the end
//
// Without `tools` and `model` nothing runs: the loop is led through the recorded answers and must come to the
// recorded requests, steps and end (so a recording that was changed is found). With `tools` every call, check
// and score runs again, in a fresh sandbox; with `model` the model is asked again, too, which only one that
// answers the same seed with the same text can pass. A step that differs is reported, and the episode goes on
// from what was recorded, so that each step is judged by itself.  Threads: one.  Failure: the sandbox's and
// the server's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agents/loop/episode.h"
#include "agents/loop/model_client.h"
#include "agents/loop/recording.h"
#include "agents/loop/toolbox.h"

namespace capstan::agents::loop {

struct Difference {
  std::int64_t step = 0;  // 0: the end
  std::string what;       // "output", "calls", …
  std::string recorded, now;
};

struct ReplayReport {
  std::int64_t steps = 0;  // that were compared
  std::vector<Difference> differences;
  bool same() const { return differences.empty(); }
};

struct ReplayOptions {
  Toolbox* tools = nullptr;      // not owned
  ModelClient* model = nullptr;  // not owned
  std::function<void(const Step& recorded, const std::vector<Difference>&)> on_step = {};
};

Result<ReplayReport> replay(const Recording& recording, const ReplayOptions& options);

}  // namespace capstan::agents::loop

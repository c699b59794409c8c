// What happens in an episode, step by step: a model's turn, a tool's call, a check, the score; and how it
// ended.
//
// A step is one line of a recording (docs/formats/agent-steps.md). `comparable` is what of a step must be the
// same when it is replayed: everything but durations, processor time and memory.  Threads: values.  Failure:
// from_json: kCorrupt.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace capstan::agents::loop {

struct ToolCall {
  std::string id = {};  // ours: "call00001", so that a model that is asked again gives the same
  std::string name = {};
  std::string arguments = {};  // JSON, as the model wrote it
};

struct Tokens {
  std::int64_t input = 0, cached = 0, output = 0,
               reasoning = 0;  // cached is part of input, reasoning of output
  std::int64_t total() const { return input + output; }
  Tokens& operator+=(const Tokens& other);
};

struct ModelReply {
  std::string content = {};
  std::string reasoning = {};
  std::vector<ToolCall> calls = {};
  std::string finish = {};  // "stop", "tool_calls", "length", "context" (the conversation became too long), …
  Json items = {};          // of the Responses API: what must be sent back as it came; else null
  Tokens tokens = {};
};

// How a tool's call, a check or a scorer ended.
struct Outcome {
  std::string output = {};  // what the model is told
  std::string ended = {};   // sandbox::ended_name, or "refused": the arguments were wrong, nothing ran
  int exit_code = 0;
  bool truncated = false;
  std::int64_t cpu_us = 0;
  std::int64_t memory_peak_bytes = 0;
  bool good() const { return ended == "exited" && exit_code == 0; }
};

enum class StepKind { kModel, kTool, kCheck, kScore };
std::string_view step_kind_name(StepKind kind);  // "model", "tool", "check", "score"

struct Step {
  StepKind kind = StepKind::kModel;
  std::int64_t number = 0;  // from 1
  std::int64_t attempt = 1;
  std::int64_t took_ms = 0;
  std::int64_t at_ms = 0;  // since the episode began, when it ended

  std::string request = {};          // kModel: SHA-256 of the request's body
  ModelReply reply = {};             // kModel
  std::int64_t pico_dollars = 0;     // kModel
  ToolCall call = {};                // kTool
  Outcome outcome = {};              // all but kModel
  std::optional<double> score = {};  // kScore; none: the scorer gave no number

  Json to_json() const;
  Json comparable() const;
  static Result<Step> from_json(const Json& json);
};

struct End {
  // "done", or what was used up: "steps", "tokens", "time", "dollars", "length" (the last turn), "context";
  // or "check": the last attempt did not pass.
  std::string reason = {};
  std::string answer = {};
  std::optional<double> score = {};
  bool passed = false;  // the score is enough; without a scorer: reason is "done"
  std::int64_t attempts = 1, steps = 0;
  Tokens tokens = {};
  std::int64_t pico_dollars = 0;
  std::int64_t took_ms = 0;
  std::int64_t cpu_us = 0;  // of the sandbox
  std::int64_t memory_peak_bytes = 0;

  Json to_json() const;
  Json comparable() const;
  static Result<End> from_json(const Json& json);
};

// "$0.001234", to a millionth; more digits below that.
std::string format_dollars(std::int64_t pico_dollars);

}  // namespace capstan::agents::loop

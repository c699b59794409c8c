// How: run_episode again, in a World that answers from the recording. What really runs is laid beside the
// recorded answer; the steps that the loop makes are laid beside the recorded steps.
#include "agents/loop/replay.h"

#include <algorithm>
#include <set>

namespace capstan::agents::loop {
namespace {

constexpr std::size_t kShownBytesMax = 300;

std::string shown(const Json* value) {
  if (value == nullptr) return "(nothing)";
  const std::string text = value->is_string() ? value->as_string() : value->dump();
  return text.size() <= kShownBytesMax ? text : text.substr(0, kShownBytesMax) + "…";
}

// Members that are not the same in both.
void compare(std::int64_t step, const Json& recorded, const Json& now, std::vector<Difference>& out) {
  std::set<std::string> keys;
  for (const auto& [key, value] : recorded.members()) keys.insert(key);
  for (const auto& [key, value] : now.members()) keys.insert(key);
  for (const std::string& key : keys) {
    const Json* before = recorded.find(key);
    const Json* after = now.find(key);
    if (before != nullptr && after != nullptr && *before == *after) continue;
    out.push_back({step, key, shown(before), shown(after)});
  }
}

class ReplayWorld final : public World {
 public:
  ReplayWorld(const Recording& recording, const ReplayOptions& options)
      : recording_(recording), options_(options) {}

  Result<ModelReply> ask(const Json& body, std::int64_t time_ms) override {
    CAPSTAN_TRY(const Step* const step, next(StepKind::kModel));
    // A turn that ran out of time did so on that day.
    if (options_.model == nullptr || step->reply.finish == "time") return step->reply;
    Step again = *step;
    CAPSTAN_TRY(again.reply, options_.model->ask(body, std::max<std::int64_t>(time_ms, 60'000), {}));
    for (std::size_t i = 0; i < again.reply.calls.size() && i < step->reply.calls.size(); ++i) {
      again.reply.calls[i].id = step->reply.calls[i].id;
    }
    compare(step->number, step->comparable(), again.comparable(), differences_);
    return step->reply;
  }

  Result<Outcome> call(const ToolCall& call, std::int64_t time_ms) override {
    CAPSTAN_TRY(const Step* const step, next(StepKind::kTool));
    if (options_.tools == nullptr) return step->outcome;
    return compared(*step, options_.tools->call(call, time_for(*step, time_ms)));
  }

  Result<Outcome> judge(StepKind kind, const Program& program, const Json& facts,
                        std::int64_t time_ms) override {
    CAPSTAN_TRY(const Step* const step, next(kind));
    if (options_.tools == nullptr) return step->outcome;
    return compared(*step, options_.tools->judge(kind, program, facts, time_for(*step, time_ms)));
  }

  Result<void> restart() override {
    return options_.tools == nullptr ? Result<void>{} : options_.tools->restart();
  }
  std::int64_t now_ms() override { return at_ms_; }
  sandbox::Usage usage() override { return {}; }

  // What the loop made of the step that was handed out last.
  void take(const Step& made) {
    const Step& recorded = recording_.steps[static_cast<std::size_t>(made.number) - 1];
    compare(recorded.number, recorded.comparable(), made.comparable(), differences_);
    if (options_.on_step) options_.on_step(recorded, differences_);
    report_.differences.insert(report_.differences.end(), differences_.begin(), differences_.end());
    differences_.clear();
    ++report_.steps;
  }

  ReplayReport finish(const Result<End>& end) {
    if (end) {
      compare(0, recording_.end.comparable(), end->comparable(), report_.differences);
    } else {
      report_.differences.push_back(
          {static_cast<std::int64_t>(position_) + 1, "step", "(see the file)", end.error().message});
    }
    if (position_ < recording_.steps.size()) {
      report_.differences.push_back(
          {0, "steps", std::to_string(recording_.steps.size()), std::to_string(position_)});
    }
    return std::move(report_);
  }

  bool off_the_track() const { return off_; }

 private:
  Result<const Step*> next(StepKind kind) {
    off_ = position_ >= recording_.steps.size() || recording_.steps[position_].kind != kind;
    if (off_) {
      return fail(Code::kConflict, "the loop came to a {} step, which the recording does not have here",
                  step_kind_name(kind));
    }
    const Step& step = recording_.steps[position_++];
    at_ms_ = step.at_ms;
    return &step;
  }

  // What ran into its end then, shall again; what did not, may be slower today.
  std::int64_t time_for(const Step& step, std::int64_t time_ms) const {
    return step.outcome.ended == "wall_time" ? time_ms : recording_.spec.sandbox.call_time_ms;
  }

  Result<Outcome> compared(const Step& recorded, Result<Outcome> now) {
    if (!now) return now;
    Step step = recorded;
    step.outcome = *std::move(now);
    if (step.kind == StepKind::kScore) step.score = parse_score(step.outcome);
    compare(step.number, recorded.comparable(), step.comparable(), differences_);
    return recorded.outcome;
  }

  const Recording& recording_;
  const ReplayOptions& options_;
  std::size_t position_ = 0;
  std::int64_t at_ms_ = 0;
  bool off_ = false;
  std::vector<Difference> differences_;  // of the step under way
  ReplayReport report_;
};

}  // namespace

Result<ReplayReport> replay(const Recording& recording, const ReplayOptions& options) {
  ReplayWorld world(recording, options);
  const auto end = run_episode(recording.spec, world, [&](const Step& step) { world.take(step); });
  if (!end && !world.off_the_track()) return std::unexpected(end.error());
  return world.finish(end);
}

}  // namespace capstan::agents::loop

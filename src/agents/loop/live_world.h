// The World of a live episode: a model behind HTTP, tools in a sandbox, the clock.
//
// Threads: one owner; stop() from any.
#pragma once

#include <chrono>
#include <memory>

#include "agents/loop/episode.h"
#include "agents/loop/model_client.h"
#include "agents/loop/toolbox.h"

namespace capstan::agents::loop {

class LiveWorld final : public World {
 public:
  // `model` outlives it. The clock starts now.
  LiveWorld(ModelClient& model, std::unique_ptr<Toolbox> tools, OnPiece on_piece)
      : model_(model), tools_(std::move(tools)), on_piece_(std::move(on_piece)) {}

  Result<ModelReply> ask(const Json& body, std::int64_t time_ms) override {
    auto reply = model_.ask(body, time_ms, on_piece_);
    note_memory();
    return reply;
  }
  Result<Outcome> call(const ToolCall& call, std::int64_t time_ms) override {
    auto outcome = tools_->call(call, time_ms);
    note_memory();
    return outcome;
  }
  Result<Outcome> judge(StepKind kind, const Program& program, const Json& facts,
                        std::int64_t time_ms) override {
    auto outcome = tools_->judge(kind, program, facts, time_ms);
    note_memory();
    return outcome;
  }
  Result<void> restart() override { return tools_->restart(); }
  std::int64_t now_ms() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began_)
        .count();
  }
  sandbox::Usage usage() override { return tools_->usage(); }
  void stop() { tools_->kill(); }
  // The sandbox's memory over time: what was in use when a step ended, for as long as the step took.
  std::int64_t memory_mib_ms() const { return memory_mib_ms_; }

 private:
  void note_memory() {
    const std::int64_t now = now_ms();
    memory_mib_ms_ += (tools_->usage().memory_bytes >> 20) * (now - noted_ms_);
    noted_ms_ = now;
  }

  ModelClient& model_;
  std::unique_ptr<Toolbox> tools_;
  OnPiece on_piece_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::int64_t noted_ms_ = 0, memory_mib_ms_ = 0;
};

}  // namespace capstan::agents::loop

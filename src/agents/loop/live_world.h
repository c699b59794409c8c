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
    return model_.ask(body, time_ms, on_piece_);
  }
  Result<Outcome> call(const ToolCall& call, std::int64_t time_ms) override {
    return tools_->call(call, time_ms);
  }
  Result<Outcome> judge(StepKind kind, const Program& program, const Json& facts,
                        std::int64_t time_ms) override {
    return tools_->judge(kind, program, facts, time_ms);
  }
  Result<void> restart() override { return tools_->restart(); }
  std::int64_t now_ms() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began_)
        .count();
  }
  sandbox::Usage usage() override { return tools_->usage(); }
  void stop() { tools_->kill(); }

 private:
  ModelClient& model_;
  std::unique_ptr<Toolbox> tools_;
  OnPiece on_piece_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

}  // namespace capstan::agents::loop

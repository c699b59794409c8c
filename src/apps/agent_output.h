// What `capstan agent` prints: steps as they happen, episodes as they end, what it all came to.
//
//   AgentOutput output(AgentOutput::Form::kText);
//   output.begin(spec, server);  … output.piece(text, reasoning);  output.step(step);  … output.end(end,
//   path);
//
// On a terminal a model's words appear as they come, and an array has a line that counts; elsewhere each step
// and each episode is printed when it has ended. kJson: one object a line, as in a recording; of an array one
// for each episode and the summary last.  Threads: one call at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "agents/loop/replay.h"
#include "agents/loop/runner.h"

namespace capstan::apps {

class AgentOutput {
 public:
  enum class Form { kText, kJson };
  explicit AgentOutput(Form form);

  // One episode.
  void begin(const agents::loop::AgentSpec& spec, std::string_view server);
  void piece(std::string_view text, bool reasoning);
  void step(const agents::loop::Step& step);
  void end(const agents::loop::End& end, const std::string& recording);

  // An array.
  void begin_array(const agents::loop::AgentsSpec& spec, std::string_view server, std::int64_t wanted);
  void episode_began();
  void episode(const agents::loop::EpisodeResult& result, const agents::loop::Pairs& task);
  void summary(const agents::loop::Summary& summary, const std::string& output);

  void replayed(const agents::loop::ReplayReport& report, const std::string& file);

 private:
  void model_head();
  void counting_line();
  void clear_line();

  Form form_;
  bool terminal_;
  bool in_model_ = false;  // pieces of a turn are being shown
  bool in_reasoning_ = false;
  std::int64_t steps_ = 0;  // shown so far
  std::int64_t wanted_ = 0, ended_ = 0, passed_ = 0, running_ = 0, tokens_ = 0;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

}  // namespace capstan::apps

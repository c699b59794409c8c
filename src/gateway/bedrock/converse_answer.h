// A replica's chat answer told as Converse tells it: events of a stream, or one object.
//
//   ConverseAnswer answer(call);
//   for (const ConverseEvent& event : answer.push(delta)) writer->write(encode_event(event.type,
//   event.payload.dump())); for (const ConverseEvent& event : answer.finish(latency_ms)) …          // or:
//   answer.whole(latency_ms)
//
// Order of a stream: messageStart; a block a kind of text (reasoning, text, each tool use), as
// contentBlockDelta … and contentBlockStop, only tool uses with a contentBlockStart; messageStop; metadata
// with usage. inputTokens are those that were not in a cache, as Bedrock counts. Threads: one owner.  Cost:
// keeps the answer's text.  Bounds: none of its own; the relay bounds answers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "gateway/bedrock/converse_request.h"
#include "gateway/openai/chat_delta.h"

namespace capstan::gateway::bedrock {

struct ConverseEvent {
  std::string_view type;  // a literal
  Json payload;
};

class ConverseAnswer {
 public:
  explicit ConverseAnswer(ConverseCall call) : call_(std::move(call)) {}
  std::vector<ConverseEvent> push(const openai::ChatDelta& delta);
  std::vector<ConverseEvent> finish(std::int64_t latency_ms);
  // Everything that was pushed as one answer, instead of finish(). `completion` is what the replica answered,
  // for additionalModelResponseFieldPaths.
  Json whole(std::int64_t latency_ms, const Json& completion);
  bool ended() const { return !finish_reason_.empty(); }  // the model said why it stopped

 private:
  enum class Kind { kNone, kReasoning, kText, kTool };
  struct Block {
    Kind kind;
    std::string text = {};  // of a tool use: its input's text
    std::string id = {}, name = {};
    std::int64_t call_index = 0;
  };
  void open(Kind kind, const openai::CallDelta* call, std::vector<ConverseEvent>& events);
  void close(std::vector<ConverseEvent>& events);
  void append(Kind kind, const std::string& text, std::vector<ConverseEvent>& events);
  std::string stop_reason() const;
  Json usage() const;

  ConverseCall call_;
  std::vector<Block> blocks_;
  bool started_ = false;
  bool open_ = false;  // the last block may grow
  std::string finish_reason_, stop_sequence_;
  Json usage_;
};

}  // namespace capstan::gateway::bedrock

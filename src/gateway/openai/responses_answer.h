// A replica's chat answer told as the Responses API tells it: events in order, and the response object that
// they build.
//
//   ResponsesAnswer answer(call, {.id = "resp_…", .created_at = now, .new_id = random_hex_24, .close =
//   seal}); send(answer.begin());  for (…) send(answer.push(delta));  send(answer.finish());     // each
//   event: {type, sequence_number, …} Json response = answer.response(); // at any time
//
// Order: response.created, response.in_progress; an item: output_item.added, content_part.added, deltas,
// their .done, content_part.done, output_item.done; then response.completed, incomplete or failed.
// sequence_number counts from 0. An item ends when one of another kind begins.
//
// An answer may have several turns: end_turn() after each; what take_codes() gives is then run (code_begins, code_ran)
// or not (code_ignored), and items() is what the next turn is to know. Outputs of code are shown where the request
// includes them, and always stored. Threads: one owner.  Cost: keeps the answer's text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/text_member.h"
#include "gateway/openai/chat_delta.h"
#include "gateway/openai/responses_request.h"

namespace capstan::gateway::openai {

struct ResponsesContext {
  std::string id;
  std::int64_t created_at = 0;
  std::function<std::string()> new_id;  // what stands after "msg_", "rs_", "fc_"
  // Makes encrypted_content of reasoning; used where the request includes it.
  std::function<std::string(const std::string& text)> close;
  std::function<std::int64_t()> now = {};  // in seconds, for completed_at; none: created_at
};

class ResponsesAnswer {
 public:
  using Events = std::vector<Json>;
  ResponsesAnswer(const ResponsesCall& call, ResponsesContext context);
  Events queue();  // created, queued: of one in the background, before begin()
  Events begin();  // created (unless it was queued), in_progress
  Events push(const ChatDelta& delta);
  Events finish();
  Events fail(const OpenAiError& error);
  void cancel();  // the response becomes "cancelled"; no more events
  Json response() const;
  Json stored() const;  // with the outputs of code, whoever asked for them
  const std::string& status() const { return status_; }
  std::int64_t next_number() { return sequence_++; }
  bool ended() const { return !finish_reason_.empty(); }  // the model said why it stopped

  struct Code {
    std::size_t item = 0;  // its place in items()
    std::string text;
  };
  Events end_turn();
  std::vector<Code> take_codes() { return std::exchange(codes_, {}); }  // of the turn that has ended
  Events code_begins(std::size_t item);
  Events code_ran(std::size_t item, const std::string& logs, bool finished, const std::vector<std::string>& images = {});
  Events code_ignored(std::size_t item);
  Events stop(std::string reason);  // the end: incomplete, and why
  const Json::Array& items() const { return output_; }
  bool calls_client() const { return calls_client_; }  // a function or custom tool was called
  ChatUsage usage() const;                             // of all turns

 private:
  enum class Kind { kNone, kReasoning, kText, kRefusal, kCall, kCustomCall, kCode };
  void emit(std::string type, Json fields, Events& events);
  void open(Kind kind, const CallDelta* call, Events& events);
  void close(Events& events, bool complete);
  void append(const std::string& text, const Json::Array& logprobs, Events& events);
  Json part(const std::string& text) const;
  void emit_part(std::string_view what, Events& events);
  void finish_item(Json& item, bool complete) const;
  void close_call(Json& item, Events& events);
  void tell(std::string more, Events& events);
  std::string whole_argument() const;
  void close_code(Json& item, Events& events, bool complete);
  Json opened(Kind kind, const CallDelta* call);
  Json shown(Json item) const;
  Json place_of(std::size_t item) const;
  void emit_done(std::size_t item, Events& events);
  Json place() const { return place_of(output_.size() - 1); }  // item_id and output_index of the open item
  std::string_view delta_type() const;
  bool complete() const;  // as far as the model says

  const ResponsesCall call_;
  const ResponsesContext context_;
  std::int64_t sequence_ = 0;
  std::string status_ = "in_progress";
  std::int64_t completed_at_ = 0;  // 0: not yet
  std::string finish_reason_, stop_reason_, service_tier_;
  ChatUsage usage_, turn_usage_;  // of the turns before, of this one
  bool usage_known_ = false;
  bool calls_client_ = false;
  Json error_;
  Json::Array output_;
  std::vector<Code> codes_;
  // The open item, the last of output_:
  Kind kind_ = Kind::kNone;
  std::int64_t call_index_ = 0;
  std::string text_;
  TextMember argument_{kCodeArgument};  // of code and of a custom tool
  std::string told_;  // of it
  Json::Array logprobs_;
};

// Takes the outputs of code out of an item, or out of all those of a list.
void hide_outputs(Json& item);
void hide_outputs(Json::Array& items);

}  // namespace capstan::gateway::openai

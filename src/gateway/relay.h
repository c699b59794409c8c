// One inference request under way: what goes to the replica, and how its answer comes back. Private to
// gateway/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "gateway/openai_error.h"
#include "http/client.h"
#include "http/server.h"

namespace capstan::gateway {

// Finds the tokens that a streamed answer reports: keeps the end of the stream, where the last event with
// usage is. Cost: one short copy a piece.  Bounds: kUsageTailBytes.
inline constexpr std::size_t kUsageTailBytes = 4096;
class UsageTail {
 public:
  void feed(std::string_view piece);
  // The last {"prompt_tokens": …} object of the stream; null if it reported none.
  Json usage() const;
  // Whether the stream ends between two events, so that another event may follow.
  bool between_events() const {
    return tail_.empty() || tail_.ends_with("\n\n") || tail_.ends_with("\r\n\r\n");
  }

 private:
  std::string tail_;
};

// Threads: of the handler's thread.  Ownership: `request` outlives it.
class Relay {
 public:
  Relay(const http::Request& request, http::ResponseWriterPtr writer, std::string request_id);

  http::Request upstream() const;
  // The replica's answer begins. False if it is busy or leaving and `may_turn_away`: then another one is
  // tried.
  bool on_head(const http::Response& head, bool may_turn_away);
  bool on_piece(std::string_view piece);
  // The replica's answer is complete, or broke off with `error`.
  void finish();
  void break_off(const std::string& why);
  void refuse(const OpenAiError& error);

  bool client_gone() const { return writer_->client_gone(); }
  bool begun() const { return status_ != 0; }
  bool streaming() const { return streaming_; }
  // Of the last answer that was turned away; 0 if none was.
  int turned_away() const { return turned_away_; }
  int status() const { return status_; }  // sent to the client, or to be sent
  const std::string& request_id() const { return request_id_; }
  std::int64_t started_ms() const { return started_ms_; }
  std::int64_t first_byte_ms() const { return first_byte_ms_; }  // 0: none yet
  Json usage() const;                                            // null if the replica reported none

 private:
  const http::Request& request_;
  http::ResponseWriterPtr writer_;
  std::string request_id_;
  std::int64_t started_ms_;
  std::int64_t first_byte_ms_ = 0;
  int status_ = 0;
  int turned_away_ = 0;
  bool streaming_ = false;
  bool too_large_ = false;
  http::Response whole_ = {};
  UsageTail tail_;
};

std::int64_t steady_now_ms();

}  // namespace capstan::gateway

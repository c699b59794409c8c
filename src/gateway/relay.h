// A replica's answer on its way to the client: pieces in, events and whole answers out to the exchange, usage read
// on the way. Private to gateway/.
//
// Threads: of one request.  Ownership: the exchange outlives it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/steady_time.h"
#include "gateway/event_splitter.h"
#include "gateway/exchange.h"

namespace capstan::gateway {

// The last usage that `text` (an event, a whole answer) reports; not exact if it reports none.
Usage find_usage(std::string_view text);
// `,"usage":null` of an event that reports none, as OpenAI writes it; empty if it is not there.
std::string_view find_no_usage(std::string_view event);

class Relay final : public Reply {
 public:
  Relay(Exchange& exchange, http::ResponseWriterPtr writer, std::string request_id);

  // Whether a replica that answers so is busy or leaving, so that another one might do better.
  static bool is_busy(int status) { return status == 429 || status == 502 || status == 503; }
  // Of the replica whose answer it is.
  void on_head(const http::Response& head);
  // False if the client is gone or the answer breaks a bound (then broken() says which).
  bool on_piece(std::string_view piece);
  void on_end();
  void break_off(const std::string& why);
  // A refusal or failure; shaped by the exchange if the first byte is still to come.
  void refuse(const ApiError& error);

  // Of the exchange:
  void respond(http::Response response) override;
  void start(int status, http::Headers headers) override;
  void write(std::string_view piece) override;
  void finish() override;
  const std::string& request_id() const override { return request_id_; }

  // The permit outlives the relay or is taken back with nullptr.
  void set_permit(Permit* permit) { permit_ = permit; }
  bool client_gone() const { return writer_->client_gone(); }
  const http::ResponseWriterPtr& writer() const { return writer_; }
  bool begun() const { return status_ != 0; }  // the answer's status is decided
  bool streaming() const { return streaming_; }
  int status() const { return status_; }
  int replica_status() const { return replica_status_; }  // 0: none has answered
  std::int64_t started_ms() const { return started_ms_; }
  std::int64_t first_byte_ms() const { return first_byte_ms_; }  // on the same clock; 0: none yet
  const std::string& broken() const { return broken_; }
  // What the replica reported, or an estimate from the events that came.
  Usage usage(std::int64_t prompt_tokens_estimate) const;

 private:
  void on_event(std::string_view raw, std::string_view data);

  Exchange& exchange_;
  http::ResponseWriterPtr writer_;
  std::string request_id_;
  Permit* permit_ = nullptr;
  std::int64_t started_ms_;
  std::int64_t first_byte_ms_ = 0;
  int status_ = 0;
  int replica_status_ = 0;
  bool streaming_ = false;     // the replica streams
  bool stream_begun_ = false;  // and its first event came
  bool done_ = false;          // it said [DONE], or reported usage
  std::int64_t events_ = 0;
  std::string broken_;
  http::Response whole_ = {};
  EventSplitter splitter_;
  Usage usage_;
};

}  // namespace capstan::gateway

// Asks one of our engines for the names of a chat prompt's blocks, so that a router need not know tokenizers and templates
// (docs/formats/kv-report.md). Private to gateway/.
//
// Threads: of the event loop.  `done` is called once, not from within the constructor, and may destroy the query; the names
// are empty if the engine did not say them within kTimeoutMs. Body and url outlive it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gateway/kv_watch.h"

namespace capstan::gateway {

class NamesQuery final : public http::CallSink {
 public:
  static constexpr int kTimeoutMs = 250;
  static constexpr std::size_t kAnswerBytesMax = 1u << 20;
  using Done = std::function<void(std::vector<std::uint64_t>)>;

  NamesQuery(http::AsyncClient& client, const std::string& url, std::string_view body, Done done) : done_(std::move(done)) {
    call_ = client.start(url, head_, body, {.connect_timeout_ms = kTimeoutMs, .silence_timeout_ms = kTimeoutMs}, *this);
  }
  void on_head(http::Response& head) override { status_ = head.status; }
  void on_piece(std::string_view piece) override {
    if (answer_.size() + piece.size() <= kAnswerBytesMax) answer_.append(piece);
  }
  void on_end(Result<void> result) override {
    const Done done = std::move(done_);
    done(result && status_ == 200 ? read_prompt_blocks(answer_) : std::vector<std::uint64_t>());
  }

 private:
  Done done_;
  http::Request head_{.method = "POST", .target = "/v1/chat/prompt_blocks", .headers = {{"content-type", "application/json"}}};
  int status_ = 0;
  std::string answer_;
  std::unique_ptr<http::AsyncCall> call_;
};

}  // namespace capstan::gateway

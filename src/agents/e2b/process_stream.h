// A process's output as a stream of ProcessEvents: start, data, keepalives, end.
//
// The head is sent with the first event, so that a failure to start is still a refusal. Threads: of the loop, as a
// ProcessListener. Ownership: the process holds it until its end, or until the client leaves.
#pragma once

#include "agents/sessions/process.h"
#include "http/server.h"

namespace capstan::agents::e2b {

class ProcessStream final : public ProcessListener, public std::enable_shared_from_this<ProcessStream> {
 public:
  // `keepalive_s`: 0 for none.
  ProcessStream(http::ResponseWriterPtr writer, std::int64_t keepalive_s)
      : writer_(std::move(writer)), keepalive_ms_(keepalive_s * 1000) {}

  void on_begin(Process& process) override;
  void on_output(Channel channel, std::string_view bytes) override;
  void on_end(const Result<sandbox::CommandResult>& result) override;
  std::size_t backlog_bytes() override { return writer_->unsent_bytes(); }
  void when_caught_up(std::function<void()> callback) override { writer_->when_sent(std::move(callback)); }

 private:
  void keep_alive();

  const http::ResponseWriterPtr writer_;
  const std::int64_t keepalive_ms_;
  std::unique_ptr<http::EventLoop::Timer> timer_;
};

}  // namespace capstan::agents::e2b

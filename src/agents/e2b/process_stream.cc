#include "agents/e2b/process_stream.h"

#include "agents/e2b/connect.h"
#include "base/base64.h"

namespace capstan::agents::e2b {
namespace {

Json event(std::string_view kind, Json value) {
  return Json::object({{"event", Json::object({{std::string(kind), std::move(value)}})}});
}

std::string_view name_of(Channel channel) {
  return channel == Channel::kOut ? "stdout" : channel == Channel::kErr ? "stderr" : "pty";
}

Json end_event(const sandbox::CommandResult& result) {
  std::string status = fmt::format("exit status {}", result.exit_code);
  if (result.ended == sandbox::Ended::kMemory)
    status = "killed: out of memory";
  else if (result.ended != sandbox::Ended::kExited)
    status = fmt::format("{}: signal {}", sandbox::ended_name(result.ended), result.signal);
  Json end = Json::object({{"exitCode", result.exit_code},
                           {"exited", result.ended == sandbox::Ended::kExited},
                           {"status", status}});
  if (result.exit_code != 0) end["error"] = status;
  return event("end", std::move(end));
}

}  // namespace

void ProcessStream::on_begin(Process& process) {
  writer_->start(200, stream_headers());
  writer_->write(frame(event("start", Json::object({{"pid", process.number()}}))));
  writer_->on_client_gone([weak = process.weak_from_this(), self = weak_from_this()] {
    const auto running = weak.lock();
    const auto stream = self.lock();
    if (stream) stream->timer_.reset();
    if (running && stream) running->forget(stream.get());
  });
  if (keepalive_ms_ <= 0) return;
  timer_ = std::make_unique<http::EventLoop::Timer>(process.loop(), [this] { keep_alive(); });
  timer_->arm(keepalive_ms_);
}

void ProcessStream::keep_alive() {
  writer_->write(frame(event("keepalive", Json::object())));
  timer_->arm(keepalive_ms_);
}

void ProcessStream::on_output(Channel channel, std::string_view bytes) {
  // By hand: base64 needs no escaping, and this is the path of every byte that a program writes.
  std::string message = "{\"event\":{\"data\":{\"";
  message += name_of(channel);
  message += "\":\"";
  message += base64_encode(bytes);
  message += "\"}}}";
  writer_->write(frame_text(message));
  if (timer_) timer_->arm(keepalive_ms_);
}

void ProcessStream::on_end(const Result<sandbox::CommandResult>& result) {
  timer_.reset();
  if (!result) {
    writer_->write(end_frame(result.error()));
  } else if (result->ended == sandbox::Ended::kWallTime) {
    writer_->write(end_frame("deadline_exceeded", "the command ran longer than its timeout and was killed"));
  } else if (result->ended == sandbox::Ended::kLost) {
    writer_->write(end_frame("unavailable", "the sandbox ended"));
  } else {
    writer_->write(frame(end_event(*result)));
    writer_->write(end_frame());
  }
  writer_->finish();
}

}  // namespace capstan::agents::e2b

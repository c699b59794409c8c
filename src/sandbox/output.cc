#include "sandbox/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace capstan::sandbox {
namespace {
constexpr std::size_t kReadBytes = 64 << 10;
// What a pipe holds at most, and a bit: more than this after the end comes from someone who goes on writing.
constexpr std::int64_t kDrainBytesMax = 2 << 20;
}  // namespace

void Output::adopt(const CommandLimits& limits,
                   const std::function<void(Stream, std::string_view)>& on_output) {
  kept_max_ = limits.output_bytes;
  written_max_ = limits.output_bytes_max;
  on_output_ = on_output;
}

Result<void> Output::make(const CommandSpec& command,
                          const std::function<void(Stream, std::string_view)>& on_output) {
  adopt(command.limits, on_output);
  for (const Stream stream : {Stream::kOut, Stream::kErr}) {
    if ((stream == Stream::kOut ? command.stdout_fd : command.stderr_fd) >= 0) continue;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe", errno);
    pipe(stream).read.reset(ends[0]);
    pipe(stream).write.reset(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
  return {};
}

void Output::close_write() {
  for (auto& each : pipes_) each.write.reset();
}

bool Output::read(Stream stream) {
  Pipe& from = pipe(stream);
  if (!from.read) return false;
  static thread_local char buffer[kReadBytes];
  const ssize_t count = ::read(from.read.get(), buffer, sizeof buffer);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  written_ += count;
  const std::int64_t kept = std::min<std::int64_t>(count, kept_max_ - kept_);
  kept_ += kept;
  const std::string_view piece(buffer, static_cast<std::size_t>(kept));
  if (on_output_ && !piece.empty())
    on_output_(stream, piece);
  else
    from.kept.append(piece);
  return true;
}

void Output::drain() {
  for (const Stream stream : {Stream::kOut, Stream::kErr}) {
    for (const std::int64_t most = written_ + kDrainBytesMax; written_ < most;) {
      const std::int64_t before = written_;
      if (!read(stream) || written_ == before) break;
    }
    pipe(stream).read.reset();
  }
}

void Output::put_into(CommandResult& result) {
  result.out = std::move(pipe(Stream::kOut).kept);
  result.err = std::move(pipe(Stream::kErr).kept);
  result.output_truncated = written_ > kept_;
  result.usage.output_bytes = written_;
}

}  // namespace capstan::sandbox

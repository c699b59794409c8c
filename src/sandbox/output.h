// The captured output of one command: two pipes, what is kept of them, and how much was written.
//
// Threads: the launcher link's thread after make().  Bounds: `kept_max` bytes of both streams together; the
// rest is read, counted and dropped, so that the program goes on, until `written_max`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "sandbox/launcher.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {

class Output {
 public:
  // Makes a pipe for each stream that the command does not have; the writing ends are put into `command`'s
  // place.
  Result<void> make(const CommandSpec& command,
                    const std::function<void(Stream, std::string_view)>& on_output);
  // A process that was started ahead gets its limits and its listener when it begins to serve, before it
  // writes anything.
  void adopt(const CommandLimits& limits, const std::function<void(Stream, std::string_view)>& on_output);
  int read_fd(Stream stream) const { return pipe(stream).read.get(); }
  int write_fd(Stream stream) const { return pipe(stream).write.get(); }
  void close_write();

  // Reads what is there; false if the stream ended.
  bool read(Stream stream);
  // What is still in the pipes, when the command has ended; a daemon that holds them open is not waited for.
  void drain();
  bool over() const { return written_ > written_max_; }
  void put_into(CommandResult& result);

 private:
  struct Pipe {
    Fd read, write;
    std::string kept;
  };
  Pipe& pipe(Stream stream) { return pipes_[stream == Stream::kErr ? 1 : 0]; }
  const Pipe& pipe(Stream stream) const { return pipes_[stream == Stream::kErr ? 1 : 0]; }

  Pipe pipes_[2];
  std::int64_t kept_ = 0, kept_max_ = 0, written_ = 0, written_max_ = 0;
  std::function<void(Stream, std::string_view)> on_output_;
};

}  // namespace capstan::sandbox

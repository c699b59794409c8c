// Snapshotter: writes a snapshot file in a forked child, so that whoever owns the state goes on at once.
//
//   snapshotter.prepare();                                   // makes the fork cheap; optional
//   if (snapshotter.prepared())
//     CAPSTAN_CHECK(snapshotter.start({.path = path}, now_ms, [&](const TextSink& sink) { write(sink); }));
//   …
//   if (auto done = snapshotter.poll(now_ms)) keep(*done);   // at each turn; does not block
//
// The child sees the memory as it was at the fork (copy on write) and exits without running destructors or
// exit handlers. It holds no descriptor but the file's, takes no lock of another thread (no logging, no SQL),
// runs at low priority, is the kernel's first choice when memory is short, and dies with its parent. A child
// that fails, dies or outlives `timeout_ms` is an error of poll(); its unfinished file is removed.
// Cost to the caller: the fork, about 2 ms per GB resident if it was prepared, else 25 ms; and one page fault
// for each page that is written while the child lives. Threads: one owner; others may run, for fork() keeps
// malloc usable in the child.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "journal/snapshot_file.h"

namespace capstan::journal {

class Snapshotter {
 public:
  struct Task {
    std::string path;
    std::vector<std::string> remove = {};  // files that the child removes first: a large one takes a while
    std::int64_t timeout_ms = 300'000;
  };

  Snapshotter() = default;
  ~Snapshotter() { cancel(); }
  Snapshotter(const Snapshotter&) = delete;
  Snapshotter& operator=(const Snapshotter&) = delete;

  // Gathers huge pages (huge_pages.h) in a thread of its own, about half a second per GB.
  void prepare();
  bool prepared() const { return gathered_; }

  // Asserts that none is under way. `now_ms` is monotonic.
  Result<void> start(const Task& task, std::int64_t now_ms, const TextWriter& write);
  bool busy() const { return child_ > 0; }
  // Once, when the child has ended: what it wrote, or why not.
  std::optional<Result<SnapshotFile>> poll(std::int64_t now_ms);
  // Kills the child, if there is one.
  void cancel();

 private:
  void reap();

  pid_t child_ = -1;
  int pipe_ = -1;
  std::string path_;
  std::string said_;
  std::int64_t timeout_ms_ = 0;
  std::int64_t deadline_ms_ = 0;
  std::atomic<bool> gathered_ = false;
  std::jthread gatherer_;
};

}  // namespace capstan::journal

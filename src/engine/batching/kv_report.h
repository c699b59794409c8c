// KvReport: which complete blocks a prefix cache holds, as a numbered stream of changes for routers.
//
//   KvReport report(64);
//   report.added(name, parent);  report.removed(name);       // the batch's thread
//   KvReport::Page page = report.since(epoch, sequence, 1000);   // any thread
//
// The last kChangesMax changes are kept. Who asks with another epoch (the engine was restarted) or for changes that are gone gets
// everything anew (`reset`). Format on the wire: docs/formats/kv-report.md.
// Threads: any.  Memory: 64 bytes a block and 24 a change, bounded by the pool and kChangesMax.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace capstan::engine {

class KvReport {
 public:
  static constexpr std::size_t kChangesMax = 65'536;

  struct Change {
    std::uint64_t name = 0;    // of the block (base/token_chain.h)
    std::uint64_t before = 0;  // name of the block before it
    bool added = false;
  };
  struct Page {
    std::uint64_t epoch = 0;
    std::uint64_t sequence = 0;   // ask from here next time
    bool reset = false;           // forget what you knew: `changes` starts from nothing
    bool more = false;            // ask again at once
    std::vector<Change> changes = {};
  };

  explicit KvReport(std::uint64_t epoch) : epoch_(epoch) {}

  void added(std::uint64_t name, std::uint64_t before);
  void removed(std::uint64_t name);

  // Changes after `sequence` of `epoch`, at most `changes_max`; after a reset all blocks at once.
  Page since(std::uint64_t epoch, std::uint64_t sequence, std::size_t changes_max) const;

 private:
  void note(Change change);

  const std::uint64_t epoch_;
  mutable std::mutex mutex_;
  std::uint64_t sequence_ = 0;  // of the newest change
  std::deque<Change> changes_;
  std::unordered_map<std::uint64_t, std::uint64_t> blocks_;  // name -> the one before
};

}  // namespace capstan::engine

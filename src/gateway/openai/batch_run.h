// One batch on its way: validates its file, sends the lines that are not done yet, writes the files of what
// they answered. Private to openai/.
//
// Threads: perform blocks, on kLinesAtOnce threads of its own; cancel and stop from any thread.
// Failure: of the disk or the database; the batch can be tried again from where it was.
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "gateway/gateway.h"
#include "gateway/openai/batch_lines.h"
#include "gateway/openai/batch_table.h"
#include "gateway/openai/file_store.h"
#include "gateway/openai/local_call.h"

namespace capstan::gateway::openai {

inline constexpr int kLinesAtOnce = 8;

class BatchRun {
 public:
  BatchRun(Gateway& gateway, BatchTable& table, FileStore& files, std::string id);
  Result<void> perform();
  void cancel();  // the client's wish: the batch ends, as cancelled
  void stop();    // the process ends: the batch stays as it is
  const std::string& id() const { return id_; }

 private:
  enum class End { kNone, kCancelled, kExpired, kStopped };
  Result<bool> prepare();  // false: the batch failed validation
  void run_lines();
  void run_line(std::size_t index);
  // What the line's request answered in the end; nullopt if the batch ended before.
  std::optional<http::Response> ask(const BatchLine& line);
  Result<void> finish();
  Result<Json> write_file(const std::vector<BatchTable::Line>& lines, bool ok);
  void end(End how);
  bool ended() const;

  Gateway& gateway_;
  BatchTable& table_;
  FileStore& files_;
  const std::string id_;
  std::string owner_, endpoint_;
  CallerPtr caller_;
  std::int64_t outputs_kept_s_ = 0;  // 0: until they are deleted
  std::int64_t expires_ = 0;
  std::vector<BatchLine> lines_;
  std::vector<char> done_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  End end_ = End::kNone;
  std::size_t next_ = 0;
  std::set<LocalCall*> calls_;
  Result<void> failure_;  // of storing a line
};

}  // namespace capstan::gateway::openai

// Follows what our engines report of their prefix caches (docs/formats/kv-report.md), so that routing knows it exactly.
//
// Every kPollMs each replica that requests had a choice of lately, and that reports, is asked for what changed. A replica
// that has no such report (404: another server, or no prefix cache) is asked once; its cache is estimated from then on.
// Threads: of the event loop.  Bounds: one question a replica at a time, kAnswerBytesMax an answer.  Failure: a replica that
// does not answer is asked again at the next turn; what was known stays.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "gateway/replica_table.h"
#include "http/async_client.h"

namespace capstan::gateway {

class KvWatch {
 public:
  static constexpr int kPollMs = 200;
  static constexpr std::int64_t kConsideredMs = 60'000;
  static constexpr std::size_t kAnswerBytesMax = 4u << 20;

  // `table` gives the latest one, or null.
  KvWatch(http::EventLoop& loop, http::AsyncClient& client, std::function<std::shared_ptr<ReplicaTable>()> table);
  ~KvWatch();

 private:
  class Question;
  void turn();

  http::EventLoop& loop_;
  http::AsyncClient& client_;
  std::function<std::shared_ptr<ReplicaTable>()> table_;
  std::map<const ReplicaState*, std::unique_ptr<Question>> questions_;  // under way
  std::vector<std::unique_ptr<Question>> over_;
  http::EventLoop::Timer timer_;
};

// A report's page into what is known; false if it is none.
bool apply_kv_report(std::string_view json, CachedPrefixes& cache);
// The names of a prompt's blocks, as POST /v1/chat/prompt_blocks answers; empty if it is no such answer.
std::vector<std::uint64_t> read_prompt_blocks(std::string_view json);

}  // namespace capstan::gateway

// Batches: files of requests that run when replicas have room, at the tier `batch`.
//
//   Batches batches(gateway, database, files);          // goes on with what an earlier process left
//   auto made = batches.create(caller, body);           // OpenAI's batch object, validating
//
// validating → in_progress → finalizing → completed; or failed (a line is wrong), cancelling → cancelled,
// expired (after 24 h). Each line is a request of its own through the gateway: limits, routing, metering.
// What a line answered is stored at once, so a batch goes on after a kill where it was; a line that was under
// way runs again. Failed lines go to the error file. Threads: every method from any; kBatchesAtOnce threads
// run batches, with kLinesAtOnce requests each. Bounds: kBatchesMax unfinished ones for each project.
// Failure: OpenAI's errors.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gateway/gateway.h"
#include "gateway/openai/batch_run.h"
#include "gateway/openai/batch_table.h"
#include "gateway/openai/file_store.h"

namespace capstan::gateway::openai {

inline constexpr int kBatchesAtOnce = 2;
inline constexpr std::int64_t kBatchesMax = 200;
inline constexpr std::int64_t kBatchSeconds = 24 * 3600;

class Batches {
 public:
  // All outlive this. start() once the gateway is mounted.
  Batches(Gateway& gateway, store::Database& database, FileStore& files);
  ~Batches();  // ends the requests under way; they run again with the next process
  void start();

  std::expected<Json, ApiError> create(const Caller& caller, const Json& body);
  std::expected<Json, ApiError> find(const std::string& owner, const std::string& id) const;
  std::expected<Json, ApiError> cancel(const std::string& owner, const std::string& id);
  std::expected<Json, ApiError> list(const std::string& owner, const std::string& after,
                                     std::int64_t limit) const;

 private:
  void serve(const std::stop_token& stop);
  // The oldest unfinished batch that nobody runs yet, claimed; null if there is none.
  std::shared_ptr<BatchRun> claim();

  Gateway& gateway_;
  BatchTable table_;
  FileStore& files_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t news_ = 0;                                    // counts batches made
  std::map<std::string, std::shared_ptr<BatchRun>> running_;  // shared with the thread that runs it
  std::vector<std::jthread> threads_;
};

}  // namespace capstan::gateway::openai

// Generator: a Batch on its own thread, for servers and evaluations.
//
//   auto generator = Generator::start(*model, {.sequences_max = 32});
//   CAPSTAN_TRY(RequestId id, generator->submit({...}));   // returns at once; events come on the generator's
//   thread generator->cancel(id);
//
// Every accepted request gets exactly one event with `finish` set, also at destruction (kCancelled). An event
// may arrive before submit() has returned; all events of one request come in order, none after the last.
// Callbacks may call submit() and cancel() (both only enqueue) but must not block or destroy the Generator.
// Threads: submit, cancel, stats and generate from any thread. The Model must outlive it and must not be
// stepped by others meanwhile.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/batching/batch.h"

namespace capstan::engine {

struct Generation {
  std::vector<TokenId> tokens;  // the stop token included
  FinishReason finish = FinishReason::kStop;
};

class Generator {
 public:
  static std::unique_ptr<Generator> start(Model& model, BatchOptions options = {});
  ~Generator();  // cancels everything, waits for the running step

  // Failure: as Batch::submit; kUnavailable while shutting down.
  Result<RequestId> submit(GenerationRequest request);
  // Takes effect before the next step.
  void cancel(RequestId id);
  BatchStats stats() const;

  // Submits and waits for the end; on_token may be set too. Not from a callback.
  Result<Generation> generate(GenerationRequest request);

 private:
  struct Pending {
    RequestId id;
    GenerationRequest request;
  };
  Generator(Model& model, BatchOptions options);
  void run();

  Model& model_;
  BatchOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  RequestId next_id_ = 1;
  std::vector<Pending> submitted_;
  std::vector<RequestId> cancelled_;
  BatchStats stats_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace capstan::engine

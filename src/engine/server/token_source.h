// What the server needs of an engine: tokens for a prompt. The real one is a Generator; tests script their
// own.
#pragma once

#include "engine/batching/batch.h"

namespace capstan::engine {

class TokenSource {
 public:
  virtual ~TokenSource() = default;  // every accepted request has had its last event when it returns
  // As Generator::submit: returns at once, events may come before it has returned, on another thread.
  virtual Result<RequestId> submit(GenerationRequest request) = 0;
  virtual void cancel(RequestId id) = 0;
  virtual BatchStats stats() const = 0;
  // Of its prefix cache; null without one.
  virtual const KvReport* kv_report() const { return nullptr; }
};

}  // namespace capstan::engine

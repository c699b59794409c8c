// Who runs ranks that are no processes under shims: chunks of task arrays, sandboxes.
//
// All operations are idempotent on the rank's id; what comes of them is reported. Threads: any.
#pragma once

#include <cstdint>

#include "base/json.h"
#include "worker/rank_id.h"

namespace capstan::worker {

class RankRunner {
 public:
  virtual ~RankRunner() = default;
  // Whether a start_rank effect is its business.
  virtual bool takes(const Json& effect) const = 0;
  virtual void start(const Json& effect) = 0;
  // False: it has no rank of that name.
  virtual bool stop(const RankId& id, std::int64_t grace_ms) = 0;
  virtual bool forget(const RankId& id) = 0;
  // Appends to a full sync's list.
  virtual void add_ranks(Json& list) const = 0;
};

}  // namespace capstan::worker

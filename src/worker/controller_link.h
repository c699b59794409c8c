// ControllerLink: one call of the controller, as the sync loop needs it. The real one is HTTP (http_link.h),
// tests bring their own.
#pragma once

#include "base/json.h"
#include "base/result.h"

namespace capstan::worker {

class ControllerLink {
 public:
  virtual ~ControllerLink() = default;

  // POST /worker/v1/sync. Blocks until the answer (the controller holds it back for some seconds if it has no
  // effects), an error, or interrupt(). The controller's address is looked up anew after every failure.
  virtual Result<Json> sync(const Json& request) = 0;

  // From any thread: the sync in progress, or else the next one, returns soon (kCancelled).
  virtual void interrupt() = 0;
};

}  // namespace capstan::worker

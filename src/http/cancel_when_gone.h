// Relays a client's leaving: cancels a request of ours when the client whose request caused it is gone.
//
//   Cancellation cancellation;
//   const CancelWhenGone guard(*writer, cancellation);   // as long as it lives
//   client.stream(url, request, {.cancellation = &cancellation}, …);
//
// Threads: made and destroyed by the handler; the cancelling may come from an I/O thread.
#pragma once

#include <memory>
#include <mutex>

#include "http/client.h"
#include "http/server.h"

namespace capstan::http {

class CancelWhenGone {
 public:
  CancelWhenGone(ResponseWriter& writer, Cancellation& cancellation) : link_(std::make_shared<Link>()) {
    link_->cancellation = &cancellation;
    writer.on_client_gone([link = link_] {
      const std::scoped_lock lock(link->mutex);
      if (link->cancellation != nullptr) link->cancellation->cancel();
    });
  }
  ~CancelWhenGone() {
    const std::scoped_lock lock(link_->mutex);
    link_->cancellation = nullptr;
  }
  CancelWhenGone(const CancelWhenGone&) = delete;
  CancelWhenGone& operator=(const CancelWhenGone&) = delete;

 private:
  struct Link {
    std::mutex mutex;
    Cancellation* cancellation = nullptr;
  };
  std::shared_ptr<Link> link_;  // shared with the callback, which may come late
};

}  // namespace capstan::http

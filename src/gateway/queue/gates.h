// Gates: a fair queue before the replicas of each model, for requests of any thread.
//
//   Gates gates({.waiting_max = 10'000});
//   switch (gates.enter(model, item, capacity, [=] { start(); })) { … }
//   gates.leave(model, item.id, tokens);          // ended, or does not want to wait any longer
//
// Threads: every method from any thread; what may start is called back outside the locks, on the thread that made
// room (that of a leave or a set_capacity), once, and not after leave() of that id returned to a caller who knew
// it to be waiting (he must tell a call under way himself).
// Bounds: as FairQueue, for each model; models are those that have replicas.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gateway/queue/fair_queue.h"

namespace capstan::gateway {

class Gates {
 public:
  using Start = std::function<void()>;
  explicit Gates(const QueueOptions& options) : options_(options) {}

  // `capacity` is asked for once, when the model is new.
  FairQueue::Entry enter(std::string_view model, const QueueItem& item, const std::function<int()>& capacity,
                         Start start);
  void leave(std::string_view model, std::uint64_t id, std::int64_t tokens);
  void set_capacity(std::string_view model, int requests_max);
  std::vector<std::string> models() const;
  // (under way, waiting)
  std::pair<int, std::size_t> load_of(std::string_view model) const;

 private:
  struct Gate {
    explicit Gate(const QueueOptions& options) : queue(options) {}
    std::mutex mutex;
    FairQueue queue;
    std::unordered_map<std::uint64_t, Start> starts;
    std::vector<Start> take(const FairQueue::Started& started);
  };
  Gate* find(std::string_view model) const;

  const QueueOptions options_;
  mutable std::shared_mutex mutex_;  // of the map; gates stay once they are made
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, std::unique_ptr<Gate>, Hash, std::equal_to<>> gates_;
};

}  // namespace capstan::gateway

// The replicas that one request may go to, and which is next: routing::choose over their load, health and caches. Private to
// gateway/.
//
//   candidates.set(table, service);
//   while (auto at = candidates.choose(prompt, now_ms)) { candidates.mark_tried(*at); … }
//
// Threads: of the event loop.  Cost: linear in the service's replicas; a prompt's pieces are named only where there is a choice.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "gateway/replica_table.h"

namespace capstan::gateway {

class Candidates {
 public:
  static constexpr std::size_t kTriedMax = 3;
  // Below this a prompt has so few blocks that the affinity of its beginning serves as well.
  static constexpr std::size_t kNamedBytesMin = 1'024;

  struct Prompt {
    std::string_view body;            // as long as choose() runs
    std::int64_t tokens = 0;          // about
    std::uint64_t request_key = 0;    // spreads ties
    std::uint64_t affinity_key = 0;   // 0: from the body's beginning
  };

  // Again: a newer table; who was tried stays tried, and the table before is kept for those who point into it.
  void set(std::shared_ptr<ReplicaTable> table, ServiceReplicas& service);
  bool is_set() const { return service_ != nullptr; }
  const std::shared_ptr<ReplicaTable>& table() const { return table_; }
  const Replica& replica(std::size_t at) const { return service_->replicas[at]; }
  const ReplicaStatePtr& state(std::size_t at) const { return service_->states[at]; }
  const std::string& service() const { return service_->service; }
  bool any_ready() const { return service_ != nullptr && service_->any_ready; }

  // Not those that were tried, are not ready, or whose circuit is open.
  std::optional<std::size_t> choose(const Prompt& prompt, std::int64_t now_ms);
  bool another(std::int64_t now_ms) const;  // whether choose() would find one
  void mark_tried(std::size_t at) { tried_.push_back(at); }
  // Of the prompt's tokens, what the replica has cached, as the last choice saw it.
  std::int64_t cached_tokens(std::size_t at) const { return service_->loads[at].cached_tokens; }
  // The prompt goes there and will be in its cache, as far as that is estimated.
  void note_sent(std::size_t at);

  // A replica to ask for the names of the prompt's blocks: if several report what they have, the least loaded one.
  std::optional<std::size_t> namer(std::size_t body_bytes, std::int64_t now_ms) const;
  void set_names(std::vector<std::uint64_t> names) { names_ = std::move(names); }

 private:
  bool may_go_to(std::size_t at, std::int64_t now_ms) const;
  std::int64_t cached_at(const CachedPrefixes& cache) const;

  std::shared_ptr<ReplicaTable> table_, before_;  // shared with requests that came while it was the latest
  ServiceReplicas* service_ = nullptr;   // in the table
  std::vector<std::size_t> tried_;
  std::vector<std::uint64_t> names_;   // of the prompt's blocks, by an engine
  std::vector<std::uint64_t> pieces_;  // of its text
  std::uint64_t affinity_key_ = 0;
  bool prepared_ = false;
};

}  // namespace capstan::gateway

#include "gateway/candidates.h"

#include <algorithm>

#include "routing/text_chain.h"

namespace capstan::gateway {
namespace {

constexpr std::size_t kAffinityBytes = 512;  // of the body: requests with the same beginning share a cache

}  // namespace

void Candidates::set(std::shared_ptr<ReplicaTable> table, ServiceReplicas& service) {
  std::vector<std::size_t> tried;
  for (const std::size_t at : tried_) {
    const auto found = std::ranges::find(service.replicas, service_->replicas[at].id, &Replica::id);
    if (found != service.replicas.end()) tried.push_back(static_cast<std::size_t>(found - service.replicas.begin()));
  }
  tried_ = std::move(tried);
  before_ = std::exchange(table_, std::move(table));
  service_ = &service;
}

bool Candidates::may_go_to(std::size_t at, std::int64_t now_ms) const {
  return service_->replicas[at].ready && service_->states[at]->circuit.admits(now_ms) &&
         std::ranges::find(tried_, at) == tried_.end();
}

bool Candidates::another(std::int64_t now_ms) const {
  if (tried_.size() >= kTriedMax || tried_.size() >= service_->replicas.size()) return false;
  for (std::size_t at = 0; at < service_->replicas.size(); ++at) {
    if (may_go_to(at, now_ms)) return true;
  }
  return false;
}

std::int64_t Candidates::cached_at(const CachedPrefixes& cache) const {
  if (cache.source == CachedPrefixes::Source::kReported)
    return static_cast<std::int64_t>(cache.reported.match(names_)) * cache.block_tokens;
  return static_cast<std::int64_t>(cache.believed.match(pieces_)) * routing::kPieceTokens;
}

std::optional<std::size_t> Candidates::choose(const Prompt& prompt, std::int64_t now_ms) {
  const std::size_t count = service_->replicas.size();
  if (count == 1) return may_go_to(0, now_ms) ? std::optional<std::size_t>(0) : std::nullopt;
  if (!std::exchange(prepared_, true)) {
    affinity_key_ = prompt.affinity_key != 0 ? prompt.affinity_key
                                             : routing::hash_text(prompt.body.substr(0, kAffinityBytes));
    if (prompt.body.size() >= kNamedBytesMin) pieces_ = routing::text_chain(prompt.body);
  }
  for (std::size_t at = 0; at < count; ++at) {
    ReplicaState& state = *service_->states[at];
    state.considered_ms = now_ms;
    routing::ReplicaLoad& load = service_->loads[at];
    load.healthy = may_go_to(at, now_ms);
    load.tokens_outstanding = state.tokens;
    load.cached_tokens = load.healthy ? std::min(cached_at(state.cache), prompt.tokens) : 0;
  }
  return routing::choose(service_->loads, {prompt.request_key, affinity_key_}, {});
}

void Candidates::note_sent(std::size_t at) {
  if (!pieces_.empty()) service_->states[at]->cache.believed.touch(pieces_);
}

std::optional<std::size_t> Candidates::namer(std::size_t body_bytes, std::int64_t now_ms) const {
  if (body_bytes < kNamedBytesMin) return std::nullopt;
  std::optional<std::size_t> best;
  int reporting = 0;
  for (std::size_t at = 0; at < service_->replicas.size(); ++at) {
    const ReplicaState& state = *service_->states[at];
    if (state.cache.source != CachedPrefixes::Source::kReported || !may_go_to(at, now_ms)) continue;
    reporting += 1;
    if (!best || state.tokens < service_->states[*best]->tokens) best = at;
  }
  return reporting > 1 ? best : std::nullopt;
}

}  // namespace capstan::gateway

#include "routing/routing.h"

#include <algorithm>
#include <vector>

#include "base/hash.h"
#include "base/prng.h"

namespace capstan::routing {
namespace {

std::uint64_t rendezvous(std::uint64_t key, std::string_view id) {
  return Prng::mix(key ^ Prng::mix(hash_text(id)));
}

}  // namespace

std::uint64_t hash_text(std::string_view text) { return Prng::mix(fnv1a(text)); }

std::optional<std::size_t> choose(std::span<const ReplicaLoad> replicas, const Request& request,
                                  const Policy& policy) {
  std::optional<std::int64_t> least;
  for (const ReplicaLoad& replica : replicas) {
    if (replica.healthy)
      least = std::min(least.value_or(replica.tokens_outstanding), replica.tokens_outstanding);
  }
  if (!least) return std::nullopt;
  const bool cached = std::any_of(replicas.begin(), replicas.end(), [](const ReplicaLoad& one) {
    return one.healthy && one.cached_tokens > 0;
  });
  const bool affine = request.affinity_key != 0;
  const std::int64_t load_max = *least + (affine || cached ? policy.affinity_window_tokens : 0);
  const std::uint64_t key = affine ? request.affinity_key : request.key;
  const auto cost = [&](std::size_t at) {
    return cached ? replicas[at].tokens_outstanding - replicas[at].cached_tokens : 0;
  };
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (!replicas[i].healthy || replicas[i].tokens_outstanding > load_max) continue;
    if (best && cost(i) != cost(*best)) {
      if (cost(i) < cost(*best)) best = i;
      continue;
    }
    // Equal hashes (never seen, but possible) go to the smaller id, so that the choice does not depend on the
    // order.
    const auto rank = [&](std::size_t at) { return rendezvous(key, replicas[at].id); };
    if (!best || rank(i) > rank(*best) || (rank(i) == rank(*best) && replicas[i].id < replicas[*best].id))
      best = i;
  }
  return best;
}

// How: the services lie along a line in the order of their ids, each as long as its weight; the key is a point on it.
std::optional<std::size_t> choose_service(std::span<const WeightedService> services, std::uint64_t key) {
  std::vector<std::size_t> order(services.size());
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = i;
    total += static_cast<std::uint64_t>(std::max<std::int64_t>(services[i].weight, 0));
  }
  if (total == 0) return std::nullopt;
  std::ranges::sort(order, {}, [&](std::size_t at) { return std::string_view(services[at].id); });
  std::uint64_t point = ((Prng::mix(key) >> 32) * total) >> 32;
  for (const std::size_t at : order) {
    const auto weight = static_cast<std::uint64_t>(std::max<std::int64_t>(services[at].weight, 0));
    if (point < weight) return at;
    point -= weight;
  }
  return std::nullopt;  // not reached: the point lies below the total
}

}  // namespace capstan::routing

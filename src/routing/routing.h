// Which replica gets a request: the least loaded one, or, within a window of load, the one that has computed
// its prefix before.
//
// Load is counted in tokens, from dispatch to end, because requests differ a thousandfold. Affinity (the same
// prefix goes to the same replica, whose cache holds it) binds only while that replica's load is within
// `affinity_window_tokens` of the least loaded one, so a popular prefix cannot make a hot spot. Where it is
// known or estimated how much of the prompt each replica has (block_cache.h), the one that needs the fewest
// tokens of work until the request is prefilled gets it: what it has under way, less what it has cached. Ties
// go by rendezvous hash (Thaler, Ravishankar 1998): every gateway chooses alike, and a replica that leaves
// moves only its own requests. Pure: no clock, no state.  Cost: linear in the replicas of one model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace capstan::routing {

struct ReplicaLoad {
  std::string id;
  bool healthy = true;
  std::int64_t tokens_outstanding = 0;
  std::int64_t cached_tokens = 0;  // of this request's prompt
};

struct Request {
  std::uint64_t key = 0;           // of the request: spreads ties
  std::uint64_t affinity_key = 0;  // of its prefix; 0: none
};

struct Policy {
  std::int64_t affinity_window_tokens = 8192;
};

// The index of the chosen replica; nullopt if none is healthy.
std::optional<std::size_t> choose(std::span<const ReplicaLoad> replicas, const Request& request,
                                  const Policy& policy);

// Of the services that serve one model (a stable version and its canary), one by weight: `key` goes to the same one while the
// weights stand, and changing them by a little moves few. nullopt if all weights are 0. Ties by id; linear.
struct WeightedService {
  std::string id;
  std::int64_t weight = 100;
};
std::optional<std::size_t> choose_service(std::span<const WeightedService> services, std::uint64_t key);

// A stable hash of text (FNV-1a, mixed): keys for `Request`.
std::uint64_t hash_text(std::string_view text);

}  // namespace capstan::routing

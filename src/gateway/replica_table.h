// The replicas as requests see them: who serves which model, for which service, with what under way; and what the gateway
// remembers of each replica between requests. Private to gateway/.
//
// Threads: of the event loop.  Ownership: a replica's state is shared by the board, the tables that name it, and the requests
// under way there.  Cost: a table is made anew when the directory changes; choosing copies nothing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "gateway/gateway.h"
#include "routing/block_cache.h"
#include "routing/circuit.h"
#include "routing/reported_blocks.h"
#include "routing/routing.h"

namespace capstan::gateway {

// What a replica has cached: as it reports it (our engine), or as one would believe after what was sent to it.
struct CachedPrefixes {
  enum class Source { kUnknown, kReported, kBelieved };
  static constexpr std::size_t kBelievedPieces = 1u << 14;  // a million tokens
  Source source = Source::kUnknown;
  routing::ReportedBlocks reported;
  std::int64_t block_tokens = 0;  // of the report
  std::string epoch;
  std::int64_t sequence = 0;
  routing::BlockCache believed{kBelievedPieces};
};

struct ReplicaState {
  std::int64_t tokens = 0;  // under way
  routing::Circuit circuit;
  CachedPrefixes cache;
  std::int64_t considered_ms = 0;  // when a request had a choice that it was part of
};
using ReplicaStatePtr = std::shared_ptr<ReplicaState>;

// The replicas of one service that serves a model.
struct ServiceReplicas {
  std::string service;
  std::int64_t weight = 100;
  bool any_ready = false;
  std::vector<Replica> replicas;
  // Beside each replica:
  std::vector<ReplicaStatePtr> states;
  std::vector<routing::ReplicaLoad> loads;  // what the choice under way sees
};

struct ReplicaTable {
  std::vector<Replica> all;
  std::map<std::string, std::vector<ServiceReplicas>, std::less<>> by_model;
};

// Remembers the state of every replica that is in the directory or has requests under way.
class ReplicaBoard {
 public:
  std::shared_ptr<ReplicaTable> table_of(std::vector<Replica> all);

 private:
  std::unordered_map<std::string, ReplicaStatePtr> states_;
};

}  // namespace capstan::gateway

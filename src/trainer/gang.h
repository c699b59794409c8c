// Gang: the ranks that train one model together, and the few collective operations they need.
//
//   CAPSTAN_TRY(GangConfig config, gang_from_environment());
//   CAPSTAN_TRY(std::unique_ptr<Gang> gang, join_gang(config));
//   CAPSTAN_CHECK(gang->sum(gradients));            // every rank now holds the same bits
//
// Every rank calls the same operations in the same order. Results are deterministic: a ring adds in rank
// order, and all ranks receive the same bytes. A gang of one needs no network and every operation is free.
// Failure: kUnavailable when a peer is gone or silent for longer than `timeout_ms`; the gang is then unusable
// and the process should exit, so that its launcher starts all ranks again. Threads: one owner.  Cost: sum
// moves 2 (n-1)/n of the bytes through each rank; gather is one round trip.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::trainer {

struct GangConfig {
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  std::string master_address;     // where rank 0 listens during the rendezvous: MASTER_ADDR
  std::uint16_t master_port = 0;  // MASTER_PORT; a launcher gives a fresh one at each restart
  std::string run;                // keys of another run or attempt are never mixed up with ours
  int timeout_ms = 60'000;        // longest silence of a peer that is still connected
};

// Reads RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RUN_ID and
// TORCHELASTIC_RESTART_COUNT, torchrun's contract. With neither RANK nor WORLD_SIZE set, a gang of one.
// Failure: kInvalid, naming the variable and what would be right.
Result<GangConfig> gang_from_environment();

class Gang {
 public:
  virtual ~Gang() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // values[i] becomes the sum over all ranks; the length is the same on every rank.
  virtual Result<void> sum(std::span<float> values) = 0;

  // The concatenation of every rank's bytes in rank order; the length is the same on every rank and not 0.
  virtual Result<std::vector<std::uint8_t>> gather_bytes(std::span<const std::uint8_t> mine) = 0;

  // The same for doubles: result[r * mine.size() + i] is rank r's i-th.
  Result<std::vector<double>> gather(std::span<const double> mine);

  // Fails with kConflict on every rank if the bytes differ anywhere: "rank 2 has another WHAT than rank 0".
  Result<void> agree(std::string_view what, std::span<const std::uint8_t> mine);

  // Returns once every rank has called it.
  Result<void> barrier();
};

// Meets the other ranks and connects to each. Blocks until all are there, at most `timeout_ms`. A gang of
// more than one ignores SIGPIPE from here on, in the whole process: a dead peer must be an error, not a
// death.
Result<std::unique_ptr<Gang>> join_gang(const GangConfig& config);

}  // namespace capstan::trainer

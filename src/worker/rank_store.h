// RankStore: the records of ranks on disk, D/worker/ranks/JOB-ATTEMPT-RANK/ (docs/formats/rank-directory.md).
//
// A claim (the directory, made exclusively) decides that a rank is started once. Its directory stays flock'ed
// from the claim on, by the worker until the shim runs and by the shim (which inherits the lock) until it
// ends. So:
//   exit.json exists                 the rank has ended, this is how
//   no exit.json, locked             a shim lives
//   no exit.json, unlocked, shim.json    the shim died: the rank is lost (its processes may still have to be
//   ended) no exit.json, unlocked, no shim.json the worker died between claim and start: the rank never ran,
//   and never will
// Threads: any; files are the state.  Failure: kConflict for a claim that exists.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "worker/data_directory.h"
#include "worker/rank_id.h"
#include "worker/shim/records.h"

namespace capstan::worker {

class RankStore {
 public:
  explicit RankStore(int ranks_fd) : ranks_fd_(ranks_fd) {}

  // Durable when it returns. The descriptor is the locked directory, for the shim.
  Result<Descriptor> claim(const RankId& id, const Json& spec) const;
  // All claims, ordered; unfinished removals of an earlier worker are completed on the way.
  Result<std::vector<RankId>> list() const;

  Result<Json> spec(const RankId& id) const;
  Result<Json> shim(const RankId& id) const;
  Result<Json> exit(const RankId& id) const;
  bool locked(const RankId& id) const;
  // Whether the shim has said that the program's execution began (file "started", a hint that is not
  // durable).
  bool started(const RankId& id) const;

  // Records an end that no shim recorded; refused (kConflict) while the directory is locked by a shim.
  Result<void> write_exit(const RankId& id, const shim::ExitRecord& record) const;
  // The same through the descriptor that claim returned, before any shim runs.
  static Result<void> write_exit(const Descriptor& claimed, const shim::ExitRecord& record);

  // Removes the record: the controller has journaled its end. Absent is fine.
  Result<void> forget(const RankId& id) const;

 private:
  Result<Descriptor> open(const RankId& id) const;
  Result<Json> read(const RankId& id, const char* name) const;
  int ranks_fd_;  // borrowed
};

}  // namespace capstan::worker

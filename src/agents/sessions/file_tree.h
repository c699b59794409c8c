// A tree of files, copied from one directory into another: directories, regular files with their execute bits, symbolic
// links as they are (never followed); everything else is left out.
//
//   CAPSTAN_CHECK(copy_tree(source_fd, destination_fd, {.owner = uid, .bytes_max = 1 << 30, .files_max = 1000}));
//
// Nobody may change the source meanwhile, or it does not matter: each name is opened without following links, so the copy
// never leaves the two directories. Threads: any.  Failure: kExhausted beyond a bound or when the disk is full, else kIo;
// what was copied so far stays.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace capstan::agents {

struct TreeLimits {
  std::uint32_t owner = 0;  // of what is made
  std::int64_t bytes_max = 0, files_max = 0;
};
Result<void> copy_tree(int from, int to, const TreeLimits& limits);

}  // namespace capstan::agents

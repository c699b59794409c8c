// A tar archive (plain, gzip or zstd) unpacked as the root of sandboxes, whoever made it.
//
//   CAPSTAN_CHECK(unpack_root("/srv/images/bookworm.tar.zst", directory, {}));   // the directory is made
//
// Directories, regular files, hard and symbolic links; everything belongs to who unpacks; set-user bits, owners and extended
// attributes are dropped, times and modes kept. Refused: absolute names, names with "..", links that lead out of the root
// (absolute ones do not: they are the sandbox's own), devices, pipes and sockets, and what is beyond a bound. Each name is
// opened within the root by the kernel (openat2), so no link of the archive leads the unpacking elsewhere. At the end the
// places where a sandbox mounts its own things exist (/dev, /proc, /run, /tmp, /work, /mnt, and /home/user as a link to /work).
//
// Threads: any.  Failure: kInvalid (the archive, with the entry and why), kExhausted (a bound, a full disk), kNotFound, kIo;
// what was unpacked so far stays.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/result.h"

namespace capstan::agents {

struct UnpackLimits {
  std::int64_t bytes_max = 32LL << 30;  // of all files together, unpacked
  std::int64_t entries_max = 2'000'000;
};

Result<void> unpack_root(const std::filesystem::path& archive, const std::filesystem::path& directory,
                         const UnpackLimits& limits);

}  // namespace capstan::agents

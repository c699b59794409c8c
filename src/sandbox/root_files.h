// Files of a sandbox from outside: read, write, list, and copy results out, while the program inside may be
// doing its worst with links, pipes and devices.
//
//   CAPSTAN_TRY(auto text, read_inside(box->root_fd(), "/work/answer.txt", 1 << 20));
//   CAPSTAN_TRY(auto copied, copy_out(box->root_fd(), "/work/out", "/var/results/7", {.bytes_max = 1 <<
//   30}));
//
// A path is absolute and inside; symbolic links in it are never followed (openat2: RESOLVE_IN_ROOT,
// NO_SYMLINKS, NO_MAGICLINKS), /proc is refused, and only regular files and directories count: a link, fifo,
// socket or device is refused (or, when a tree is copied, skipped and counted). Threads: any.  Failure:
// kDenied for such paths, kNotFound, kExhausted beyond a bound.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace capstan::sandbox {

struct InsideEntry {
  std::string name;
  char type = 'f';  // f: file, d: directory, l: link, o: other
  std::int64_t bytes = 0;
  std::int64_t modified_ms = 0;  // since the epoch
  std::uint32_t mode = 0;        // permission bits
};

Result<std::string> read_inside(int root, const std::string& path, std::int64_t bytes_max);
// Replaces the file's bytes; makes missing directories. What it makes belongs to `host_uid`
// (Sandbox::host_uid).
Result<void> write_inside(int root, const std::string& path, std::string_view bytes, std::uint32_t host_uid);
Result<void> make_directory_inside(int root, const std::string& path, std::uint32_t host_uid);
Result<std::vector<InsideEntry>> list_inside(int root, const std::string& path,
                                             std::size_t entries_max = 10'000);
Result<InsideEntry> stat_inside(int root, const std::string& path);
// A directory goes with all that is in it.
Result<void> remove_inside(int root, const std::string& path);
Result<void> rename_inside(int root, const std::string& from, const std::string& to);

struct CopyLimits {
  std::int64_t bytes_max = 1 << 30;
  std::int64_t files_max = 100'000;
  int depth_max = 32;
};
struct CopyReport {
  std::int64_t bytes = 0, files = 0;
  std::int64_t skipped = 0;  // links, pipes, sockets, devices
};
// A file or a tree, into `destination` on the host, which must not exist yet; files arrive as 0644 or 0755,
// the caller's. Holes count as bytes. On failure what was copied so far stays.
Result<CopyReport> copy_out(int root, const std::string& path, const std::string& destination,
                            const CopyLimits& limits = {});

}  // namespace capstan::sandbox

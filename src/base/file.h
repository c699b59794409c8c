// Files: read whole, write atomically and durably, make directories, random secrets.
//
// Failure: Code::kNotFound, kDenied, kExhausted (disk full) or kIo with the path in the message.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan {

// The file's bytes; a file longer than `bytes_max` is refused with kExhausted.
Result<std::string> read_file(const std::filesystem::path& path, std::uint64_t bytes_max = 64u << 20);

// Replaces the file in one step: a temporary file beside it, fsync, rename, fsync of the directory.
// After a crash the file holds either the old or the new bytes.
Result<void> write_file_atomic(const std::filesystem::path& path, std::string_view bytes,
                               unsigned mode = 0644);

// mkdir -p; the last component gets `mode` if it is made here.
Result<void> make_directories(const std::filesystem::path& path, unsigned mode = 0755);

// `bytes` random bytes from the system, as hexadecimal: tokens and incarnation ids. Never used in the core.
std::string random_hex(int bytes);

}  // namespace capstan

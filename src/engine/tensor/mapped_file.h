// MappedFile: a regular file mapped read-only into memory.
//
//   CAPSTAN_TRY(MappedFile file, MappedFile::open("model.gguf"));
//   parse(file.bytes());
//
// Cost: one mmap; pages are read when touched. Failure: kNotFound, kDenied, kIo with the path; kCorrupt if it is no
// regular file. A file that is cut while mapped ends the process (SIGBUS). Threads: immutable. Ownership: views into
// bytes() live as long as the MappedFile, also when it is moved.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "base/result.h"

namespace capstan::engine {

class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  std::span<const std::uint8_t> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  std::span<const std::uint8_t> bytes_;
};

// Gives the whole pages of a range of a mapped file back to the system; they are read again when touched.
void forget_pages(const void* begin, std::size_t bytes);

}  // namespace capstan::engine

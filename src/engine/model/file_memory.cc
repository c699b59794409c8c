// Address space for the whole file is reserved at once; pages come with the first write into them.
#include "engine/model/file_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/log.h"

namespace capstan::engine {
namespace {

constexpr std::uint64_t kPiece = 2u << 20;  // a large page

}  // namespace

Result<std::unique_ptr<FileMemory>> FileMemory::of_file(int fd, std::uint64_t bytes) {
  auto memory = std::unique_ptr<FileMemory>(new FileMemory());
  memory->fd_ = fd;
  memory->bytes_ = bytes;
  memory->mapped_bytes_ = bytes + kPiece;
  void* mapped = ::mmap(nullptr, memory->mapped_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED)
    return fail(Code::kExhausted, "no memory for {:.1f} GiB of packed weights",
                static_cast<double>(bytes) / (1 << 30));
  memory->mapped_ = mapped;
  const auto address = reinterpret_cast<std::uintptr_t>(mapped);
  memory->data_ = static_cast<std::uint8_t*>(mapped) + (kPiece - address % kPiece) % kPiece;
  // A small model would pay for a whole large page.
  if (bytes >= 16 * kPiece) ::madvise(memory->data_, bytes, MADV_HUGEPAGE);
  memory->there_.resize((bytes + kPiece - 1) / kPiece, fd < 0);
  return memory;
}

FileMemory::~FileMemory() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
  if (fd_ >= 0) ::close(fd_);
}

void FileMemory::need(std::span<const Range> ranges, ThreadPool& pool) {
  missing_.clear();
  for (const Range& range : ranges) {
    for (std::uint64_t piece = range.begin / kPiece; piece * kPiece < range.end; ++piece) {
      if (there_[piece]) continue;
      missing_.push_back(piece);
      there_[piece] = true;
    }
  }
  pool.parallel_for(static_cast<int>(missing_.size()),
                    [this](int i) { read_piece(missing_[static_cast<std::size_t>(i)]); });
}

void FileMemory::read_piece(std::uint64_t piece) {
  std::uint64_t at = piece * kPiece;
  const std::uint64_t end = std::min(bytes_, at + kPiece);
  while (at < end) {
    const ssize_t got = ::pread(fd_, data_ + at, end - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      log_error("the file of packed weights can no longer be read", "reason={}",
                got == 0 ? "it was cut off" : std::strerror(errno));
      std::_Exit(1);
    }
    at += static_cast<std::uint64_t>(got);
  }
}

}  // namespace capstan::engine

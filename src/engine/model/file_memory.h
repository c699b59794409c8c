// FileMemory: a file's bytes in memory of large pages, read piece by piece when they are first needed.
//
//   CAPSTAN_TRY(auto memory, FileMemory::of_file(fd, bytes));
//   memory->need(ranges, pool);              // before data() + range.begin … is read
//
// Why not a mapping: the pages of a mapped file are of 4 KiB, and looking them up costs a tenth of the rate at
// which weights can be read; a first touch of cold ones waits for the disk 32 of them at a time. Pieces are
// read 2 MiB each, by all threads of the pool. What is never needed takes no memory.
// Cost: need() of what is there looks at a bit for each 2 MiB. Threads: one caller; the pool inside.
// Failure: no address space: kExhausted. A disk that fails later ends the process with a message, as a mapping would
// end it without one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/kernels/thread_pool.h"

namespace capstan::engine {

class FileMemory {
 public:
  // Takes the descriptor over.
  static Result<std::unique_ptr<FileMemory>> of_file(int fd, std::uint64_t bytes);
  // Without a file: all is there, and zero.
  static Result<std::unique_ptr<FileMemory>> empty(std::uint64_t bytes) { return of_file(-1, bytes); }
  ~FileMemory();
  FileMemory(const FileMemory&) = delete;
  FileMemory& operator=(const FileMemory&) = delete;

  struct Range {
    std::uint64_t begin = 0, end = 0;
  };
  std::uint8_t* data() { return data_; }
  void need(std::span<const Range> ranges, ThreadPool& pool);

 private:
  FileMemory() = default;
  void read_piece(std::uint64_t piece);

  int fd_ = -1;
  std::uint64_t bytes_ = 0;
  void* mapped_ = nullptr;
  std::uint64_t mapped_bytes_ = 0;
  std::uint8_t* data_ = nullptr;  // aligned to a piece
  std::vector<bool> there_;       // by piece
  std::vector<std::uint64_t> missing_;
};

}  // namespace capstan::engine

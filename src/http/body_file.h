// A message's body that is too large to hold: in a file, read through a mapping.
//
//   BodyFile body(room);                     // a file without a name
//   CAPSTAN_CHECK(body.append(bytes));       // as they come
//   CAPSTAN_CHECK(body.finish());
//   parse(body.bytes());
//
//   CAPSTAN_TRY(auto file, BodyFile::open(path));   // one that is there: a body to send
//
// Cost: the bytes lie in the page cache and on disk; without a name until the last owner is gone.  Threads: one at a time;
// once it is finished any.  Failure: kExhausted (disk or room full), kNotFound, kIo, with the path in the message.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "base/result.h"

namespace capstan::http {

class BodyFile {
 public:
  // What all bodies of a server may have on disk together, and where.
  struct Room {
    std::filesystem::path directory;
    std::uint64_t bytes_max;
    std::atomic<std::uint64_t> bytes{0};
  };
  explicit BodyFile(std::shared_ptr<Room> room) : room_(std::move(room)) {}
  static Result<std::shared_ptr<const BodyFile>> open(const std::filesystem::path& path);
  ~BodyFile();
  BodyFile(const BodyFile&) = delete;
  BodyFile& operator=(const BodyFile&) = delete;

  Result<void> append(std::string_view bytes);  // blocks on disk
  Result<void> finish();                        // nothing is appended after it
  bool is_finished() const { return finished_; }
  std::string_view bytes() const { return {static_cast<const char*>(mapped_), mapped_ == nullptr ? 0 : size_}; }

 private:
  const std::shared_ptr<Room> room_;  // shared by the server and its bodies; null: a file with a name
  int fd_ = -1;
  std::uint64_t size_ = 0;  // as appended so far
  void* mapped_ = nullptr;
  bool finished_ = false;
};

}  // namespace capstan::http

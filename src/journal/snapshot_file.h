// Snapshot files: a state's text, compressed, and its hash.
//
//   CAPSTAN_TRY(auto written, write_snapshot_file(path, [&](const TextSink& sink) { state.write(sink); }));
//   CAPSTAN_TRY(std::string text, read_snapshot_file(path, written.state_hash, written.text_bytes));
//
// The file is one zstd frame of the text, nothing else: `zstd -dc FILE | sha256sum` prints the state hash.
// Appears under its name only when complete and durable (a temporary file beside it, fsync, rename, fsync of
// the directory).  Cost: one pass of zstd level 1 and SHA-256, about 3 s per GB; memory: two buffers of 1 MiB
// for writing, the whole text for reading.  Failure: kExhausted (disk full), kIo, kNotFound, kCorrupt.
// Threads: values.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::journal {

// Takes a text piece by piece.
using TextSink = std::function<void(std::string_view)>;
using TextWriter = std::function<void(const TextSink&)>;

struct SnapshotFile {
  std::string state_hash;  // SHA-256 of the text, hexadecimal
  std::int64_t text_bytes = 0;
  std::int64_t file_bytes = 0;
};

Result<SnapshotFile> write_snapshot_file(const std::string& path, const TextWriter& write);
// kCorrupt if it is damaged, or is not the text of that hash and length.
Result<std::string> read_snapshot_file(const std::string& path, std::string_view state_hash,
                                       std::int64_t text_bytes);

// The two steps of write_snapshot_file, for a forked child: everything that may take a lock or open a file
// happens in prepare(); write() only hashes, compresses, writes, and renames.
class SnapshotFileWriter {
 public:
  static Result<SnapshotFileWriter> prepare(const std::string& path);
  ~SnapshotFileWriter();  // closes; removes what is incomplete
  SnapshotFileWriter(SnapshotFileWriter&&) noexcept;

  Result<SnapshotFile> write(const TextWriter& write);
  int file_fd() const;
  int directory_fd() const;
  // Another process has taken over: this one only closes.
  void release();
  // What an unfinished write leaves behind.
  static std::string temporary_path(const std::string& path) { return path + ".tmp"; }

 private:
  struct State;
  explicit SnapshotFileWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace capstan::journal

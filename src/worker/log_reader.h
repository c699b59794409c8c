// LogReader: the log of a rank as one stream, over its rotated parts and while it grows.
//
//   LogReader reader(directory_fd, "0.log", tail_bytes);
//   while (true) { std::string bytes = reader.read(); if (bytes.empty()) … wait, or stop if the rank has
//   ended … }
//
// Parts that are rotated away before they were read are skipped: the log is bounded, not the reader's
// patience. Threads: one owner.  Cost: one read(2) per call; at the end also a stat of the parts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "worker/descriptor.h"

namespace capstan::worker {

class LogReader {
 public:
  // Begins at the first whole line within the last `tail_bytes`, or at the oldest byte kept.
  LogReader(Descriptor directory, std::string name, std::optional<std::int64_t> tail_bytes);

  // Up to 64 KiB; empty at the present end.
  std::string read();

 private:
  Descriptor open_part(int part) const;
  int part_of_current() const;  // -1 if it was rotated away
  void skip_to_tail(std::int64_t tail_bytes);
  bool advance();

  Descriptor directory_;
  std::string name_;
  Descriptor current_;
};

}  // namespace capstan::worker

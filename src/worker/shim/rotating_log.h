// RotatingLog: the output of a rank in files that together never exceed a bound.
//
// NAME is the newest part, NAME.1 the one before, up to NAME.3 (kRotatedParts). A part is rotated away when
// it would grow beyond a quarter of the bound; the oldest part is then replaced. What cannot be written (disk
// full) is dropped and counted, and a line in the log says so as soon as writing works again: a rank never
// waits for disk. Threads: one owner.  Cost: one write(2) per append.  Failure: none is reported; output is
// best effort.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace capstan::shim {

inline constexpr int kRotatedParts = 3;
inline constexpr std::int64_t kLogBytesMin = 64 * 1024;  // smaller bounds are raised to this

class RotatingLog {
 public:
  // `directory_fd` is borrowed and must stay open. An existing file is continued.
  RotatingLog(int directory_fd, std::string name, std::int64_t bytes_max);
  ~RotatingLog();
  RotatingLog(const RotatingLog&) = delete;
  RotatingLog& operator=(const RotatingLog&) = delete;

  void append(std::string_view bytes);
  // A line of Capstan's own: "[capstan] text".
  void note(std::string_view text);

 private:
  void open_file();
  void rotate();
  bool write_piece(std::string_view bytes);

  int directory_fd_;
  std::string name_;
  std::int64_t part_bytes_max_;
  int fd_ = -1;
  std::int64_t part_bytes_ = 0;
  std::int64_t lost_bytes_ = 0;
};

}  // namespace capstan::shim

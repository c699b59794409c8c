// Bytes on their way to a socket: small pieces gathered, large ones kept as they are. Private to http/.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <deque>
#include <span>
#include <string>
#include <string_view>

namespace capstan::http {

class OutputQueue {
 public:
  static constexpr std::size_t kGatherBytes = 32u << 10;
  static constexpr std::size_t kPiecesMax = 16;

  // A string to append to, until the next call of add().
  std::string& tail() {
    if (pieces_.empty() || pieces_.back().size() > kGatherBytes) pieces_.emplace_back();
    return pieces_.back();
  }
  void add(std::string_view text) { tail().append(text); }
  void add_whole(std::string text) {
    if (text.size() < kGatherBytes)
      tail().append(text);
    else
      pieces_.push_back(std::move(text));
  }
  bool empty() const { return pieces_.empty() || (pieces_.size() == 1 && pieces_[0].size() == sent_); }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const std::string& piece : pieces_) sum += piece.size();
    return sum - sent_;
  }
  std::span<const iovec> front(std::array<iovec, kPiecesMax>& room) const {
    std::size_t count = 0;
    for (const std::string& piece : pieces_) {
      if (count == room.size()) break;
      const std::size_t skip = count == 0 ? sent_ : 0;
      room[count++] = {const_cast<char*>(piece.data()) + skip, piece.size() - skip};
    }
    return {room.data(), count};
  }
  void sent(std::size_t bytes) {
    sent_ += bytes;
    while (!pieces_.empty() && sent_ >= pieces_.front().size()) {
      sent_ -= pieces_.front().size();
      if (pieces_.size() == 1 && pieces_.front().capacity() <= kGatherBytes) {
        pieces_.front().clear();  // its memory serves the next answer
        return;
      }
      pieces_.pop_front();
    }
  }
  void clear() {
    pieces_.clear();
    sent_ = 0;
  }

 private:
  std::deque<std::string> pieces_;
  std::size_t sent_ = 0;  // of the first piece
};

}  // namespace capstan::http

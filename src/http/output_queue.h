// Bytes on their way to a socket: small pieces gathered, large ones and files kept as they are. Private to http/.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "http/body_file.h"

namespace capstan::http {

class OutputQueue {
 public:
  static constexpr std::size_t kGatherBytes = 32u << 10;
  static constexpr std::size_t kPiecesMax = 16;

  // A string to append to, until the next call of add().
  std::string& tail() {
    if (pieces_.empty() || pieces_.back().file || pieces_.back().text.size() > kGatherBytes) pieces_.emplace_back();
    return pieces_.back().text;
  }
  void add(std::string_view text) { tail().append(text); }
  void add_whole(std::string text) {
    if (text.size() < kGatherBytes)
      tail().append(text);
    else
      pieces_.push_back({std::move(text), nullptr});
  }
  void add_file(std::shared_ptr<const BodyFile> file) {
    if (!file->bytes().empty()) pieces_.push_back({{}, std::move(file)});
  }
  bool empty() const { return pieces_.empty() || (pieces_.size() == 1 && pieces_[0].bytes().size() == sent_); }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const Piece& piece : pieces_) sum += piece.bytes().size();
    return sum - sent_;
  }
  std::span<const iovec> front(std::array<iovec, kPiecesMax>& room) const {
    std::size_t count = 0;
    for (const Piece& piece : pieces_) {
      if (count == room.size()) break;
      const std::string_view rest = piece.bytes().substr(count == 0 ? sent_ : 0);
      room[count++] = {const_cast<char*>(rest.data()), rest.size()};
    }
    return {room.data(), count};
  }
  void sent(std::size_t bytes) {
    sent_ += bytes;
    while (!pieces_.empty() && sent_ >= pieces_.front().bytes().size()) {
      Piece& first = pieces_.front();
      sent_ -= first.bytes().size();
      if (pieces_.size() == 1 && !first.file && first.text.capacity() <= kGatherBytes) {
        first.text.clear();  // its memory serves the next answer
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
  struct Piece {
    std::string text = {};
    std::shared_ptr<const BodyFile> file = {};  // shared with other answers: in place of `text`
    std::string_view bytes() const { return file ? file->bytes() : std::string_view(text); }
  };
  std::deque<Piece> pieces_;
  std::size_t sent_ = 0;  // of the first piece
};

}  // namespace capstan::http

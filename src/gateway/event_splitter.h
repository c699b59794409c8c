// Cuts a stream of server-sent events into events, without copying those that come whole.
//
// Accepts LF and CRLF. Cost: one pass over the bytes; an event that comes in pieces is copied once.
// Bounds: an event may have kEventBytesMax; more is a failure of the replica.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace capstan::gateway {

inline constexpr std::size_t kEventBytesMax = 4u << 20;

class EventSplitter {
 public:
  // Calls on_event(raw, data) for each event that `piece` completes; false if one is too large. `raw` holds the
  // blank line at its end; `data` is empty for comments.
  template <class OnEvent>
  bool feed(std::string_view piece, OnEvent&& on_event) {
    if (!pending_.empty()) {
      pending_.append(piece);
      piece = pending_;
    }
    std::size_t start = 0;
    for (std::size_t end; (end = event_end(piece.substr(start))) != 0; start += end) {
      const std::string_view raw = piece.substr(start, end);
      on_event(raw, data_of(raw));
    }
    const std::string_view rest = piece.substr(start);
    if (pending_.empty()) {
      pending_ = rest;
    } else {
      pending_.erase(0, start);
    }
    return pending_.size() <= kEventBytesMax;
  }
  // Whether the stream stands between two events.
  bool between_events() const { return pending_.empty(); }
  // An event that the stream's end left without its blank line; as SSE has it, it is not delivered.
  std::string_view unfinished() const { return pending_; }

 private:
  // The length of the first event; 0 if it is not complete.
  static std::size_t event_end(std::string_view text);
  std::string_view data_of(std::string_view raw);

  std::string pending_;
  std::string joined_;  // of several data lines
};

}  // namespace capstan::gateway

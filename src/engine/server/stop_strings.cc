// The held text is searched anew with each piece; it never exceeds the longest stop, so that is cheap.
#include "engine/server/stop_strings.h"

#include <algorithm>
#include <utility>

namespace capstan::engine {

std::string StopStrings::push(std::string_view piece) {
  if (found_) return {};
  if (stops_.empty()) return std::string(piece);
  held_ += piece;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    found_ = true;
    std::string shown = held_.substr(0, first);
    held_.clear();
    return shown;
  }
  std::size_t keep = 0;  // the longest end of `held_` that begins a stop
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) keep = length;
    }
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return shown;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

}  // namespace capstan::engine

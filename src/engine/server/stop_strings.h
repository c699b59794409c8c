// Stop sequences over streamed text: what may still become one is held back, and text ends before the first
// found.
//
// Threads: one owner.  Cost: O(bytes x stops); holds at most the longest stop.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace capstan::engine {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  // The text that can be shown now. After a stop was found: nothing, ever.
  std::string push(std::string_view piece);
  // The end of the text: what was held back.
  std::string finish();
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace capstan::engine

// Milliseconds of a clock that never goes back; of no meaning but their difference. Not for the core, whose time is an
// argument.
#pragma once

#include <chrono>
#include <cstdint>

namespace capstan {

inline std::int64_t steady_now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace capstan

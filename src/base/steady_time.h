// Milliseconds of a clock that never goes back; of no meaning but their difference. The core gets its time as an argument.
#pragma once

#include <chrono>
#include <cstdint>

namespace capstan {

inline std::int64_t steady_now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace capstan

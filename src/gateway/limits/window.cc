#include "gateway/limits/window.h"

#include <chrono>

namespace capstan::gateway {

Span window_of(store::Window window, std::int64_t now_ms) {
  using namespace std::chrono;
  constexpr std::int64_t kMinuteMs = 60'000, kDayMs = 86'400'000;
  switch (window) {
    case store::Window::kConcurrent: return {0, INT64_MAX};
    case store::Window::kMinute: {
      const std::int64_t begin = now_ms - now_ms % kMinuteMs;
      return {begin, begin + kMinuteMs};
    }
    case store::Window::kDay: {
      const std::int64_t begin = now_ms - now_ms % kDayMs;
      return {begin, begin + kDayMs};
    }
    case store::Window::kMonth: break;
  }
  const year_month_day day{sys_days(days(now_ms / kDayMs))};
  const sys_days first = day.year() / day.month() / 1;
  const sys_days next = year_month_day((day.year() / day.month() + months(1)) / 1);
  return {first.time_since_epoch().count() * kDayMs, next.time_since_epoch().count() * kDayMs};
}

}  // namespace capstan::gateway

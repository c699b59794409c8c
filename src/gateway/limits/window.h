// Windows of limits: which minute, day or month (UTC) a moment lies in. Pure.
#pragma once

#include <cstdint>

#include "store/tenants.h"

namespace capstan::gateway {

struct Span {
  std::int64_t begin_ms = 0;
  std::int64_t end_ms = 0;  // exclusive
  friend bool operator==(const Span&, const Span&) = default;
};
// The window that holds `now_ms` (milliseconds since 1970). kConcurrent: all time.
Span window_of(store::Window window, std::int64_t now_ms);

}  // namespace capstan::gateway

// Structured log lines to standard error: time, level, static text, then values.
//
//   log_info("worker registered", "worker={} cpus={}", id, cpus);
//
// Secrets are never passed to it. Threads: safe from any thread. Cost: about a microsecond a line.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "base/result.h"

namespace capstan {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// Lines below `level` are dropped (default kInfo). `name` stands in each line ("controller", "worker").
void log_configure(std::string_view name, LogLevel level);
// From now on lines go to this file (appended, rotated at 16 MiB, 3 files kept) instead of standard error.
Result<void> log_to_file(const char* path);
void log_line(LogLevel level, std::string_view text, std::string_view values);

#define CAPSTAN_LOG_(name, level)                                                        \
  template <class... Args>                                                               \
  void name(std::string_view text, fmt::format_string<Args...> format, Args&&... args) { \
    log_line(level, text, fmt::format(format, std::forward<Args>(args)...));             \
  }                                                                                      \
  inline void name(std::string_view text) { log_line(level, text, {}); }
CAPSTAN_LOG_(log_debug, LogLevel::kDebug)
CAPSTAN_LOG_(log_info, LogLevel::kInfo)
CAPSTAN_LOG_(log_warn, LogLevel::kWarn)
CAPSTAN_LOG_(log_error, LogLevel::kError)
#undef CAPSTAN_LOG_

}  // namespace capstan

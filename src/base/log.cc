#include "base/log.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

namespace capstan {
namespace {

constexpr const char* kPattern = "%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %n %v";
constexpr std::size_t kLogFileBytesMax = 16u << 20;
constexpr std::size_t kLogFilesMax = 3;

// The one logger of the process; log_configure and log_to_file replace it at start-up.
std::shared_ptr<spdlog::logger>& logger() {
  static auto instance = [] {
    auto made =
        std::make_shared<spdlog::logger>("capstan", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern(kPattern);
    made->flush_on(spdlog::level::info);
    return made;
  }();
  return instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

void replace_logger(std::string name, spdlog::sink_ptr sink, spdlog::level::level_enum level) {
  auto made = std::make_shared<spdlog::logger>(std::move(name), std::move(sink));
  made->set_pattern(kPattern);
  made->set_level(level);
  made->flush_on(spdlog::level::info);
  logger() = std::move(made);
}

}  // namespace

void log_configure(std::string_view name, LogLevel level) {
  replace_logger(std::string(name), logger()->sinks().front(), to_spdlog(level));
}

Result<void> log_to_file(const char* path) {
  try {
    auto sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(path, kLogFileBytesMax, kLogFilesMax);
    replace_logger(logger()->name(), std::move(sink), logger()->level());
  } catch (const spdlog::spdlog_ex& exception) {
    return fail(Code::kIo, "cannot log: {}", exception.what());
  }
  return {};
}

void log_line(LogLevel level, std::string_view text, std::string_view values) {
  if (values.empty()) {
    logger()->log(to_spdlog(level), "{}", text);
  } else {
    logger()->log(to_spdlog(level), "{} {}", text, values);
  }
}

}  // namespace capstan

#include "apps/loading_line.h"

#include <unistd.h>

#include <cstdio>

#include "base/log.h"

namespace capstan::engine {
namespace {

constexpr auto kBetweenLines = std::chrono::milliseconds(200);

}  // namespace

std::string loading_text(std::uint64_t done, std::uint64_t total, double seconds) {
  const double gib = 1 << 30, a = static_cast<double>(done), b = static_cast<double>(total);
  std::string text = fmt::format("{:.0f} %, {:.1f} of {:.1f} GiB", 100 * a / b, a / gib, b / gib);
  if (seconds > 0 && done > 0)
    text += fmt::format(", {:.0f} MB/s, {:.0f} s left", a / seconds / 1e6, (b - a) / (a / seconds));
  return text;
}

LoadingLine::LoadingLine() : terminal_(isatty(STDERR_FILENO) != 0) {}

void LoadingLine::show(const LoadProgress& now) {
  const auto time = Clock::now();
  if (stage_ != now.stage) {
    stage_ = now.stage;
    began_ = time;
    shown_at_ = {};
    tenths_ = 0;
    if (!terminal_) log_info("loading", "stage=\"{}\"", stage_);
  }
  if (now.total == 0) return;
  const std::string text = loading_text(now.done, now.total, std::chrono::duration<double>(time - began_).count());
  const bool last = now.done >= now.total;
  if (terminal_) {
    if (!last && time - shown_at_ < kBetweenLines) return;
    shown_at_ = time;
    std::fprintf(stderr, "\r\033[K%s: %s%s", stage_.c_str(), text.c_str(), last ? "\n" : "");
  } else if (const std::uint64_t tenths = now.done * 10 / now.total; tenths != tenths_) {
    tenths_ = tenths;
    log_info("loading", "stage=\"{}\" progress=\"{}\"", stage_, text);
  }
}

}  // namespace capstan::engine

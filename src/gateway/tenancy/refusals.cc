#include "gateway/tenancy/refusals.h"

#include <fmt/format.h>

#include <algorithm>

namespace capstan::gateway {
namespace {

using store::Unit;
using store::Window;

constexpr std::int64_t kRetryMaxMs = 86'400'000;

std::string amount(Unit unit, std::int64_t value) {
  return unit == Unit::kNanoDollars ? "$" + format_dollars(value) : std::to_string(value);
}

std::string_view words(Unit unit) {
  switch (unit) {
    case Unit::kRequests: return "requests";
    case Unit::kTokens: return "tokens";
    case Unit::kInputTokens: return "input tokens";
    case Unit::kOutputTokens: return "output tokens";
    case Unit::kNanoDollars: return "spending";
  }
  return "";
}

}  // namespace

std::string format_reset(std::int64_t ms) {
  if (ms < 1'000) return std::to_string(ms) + "ms";
  const std::int64_t seconds = (ms + 999) / 1'000;
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3'600) return fmt::format("{}m{}s", seconds / 60, seconds % 60);
  return fmt::format("{}h{}m{}s", seconds / 3'600, seconds / 60 % 60, seconds % 60);
}

std::string format_dollars(std::int64_t nano_dollars) {
  std::string text = fmt::format("{}.{:09d}", nano_dollars / 1'000'000'000, nano_dollars % 1'000'000'000);
  const std::size_t least = text.find('.') + 3;
  while (text.size() > least && text.back() == '0') text.pop_back();
  return text;
}

ApiError to_error(const LimitRefusal& refusal, const std::string& subject) {
  const store::LimitRule& rule = refusal.rule;
  const bool money = rule.unit == Unit::kNanoDollars;
  std::string message = fmt::format(
      "limit of {}{}: {} {} {}{}; used {}, held by requests under way {}, asked for {}",
      subject, rule.model.empty() ? "" : fmt::format(" for model '{}'", rule.model), words(rule.unit),
      amount(rule.unit, rule.amount), rule.window == Window::kConcurrent ? "" : "per ",
      rule.window == Window::kConcurrent ? "at once" : store::name_of(rule.window), amount(rule.unit, refusal.used),
      amount(rule.unit, refusal.reserved), amount(rule.unit, refusal.wanted));
  message += refusal.retry_after_ms == 0
                 ? "; this request alone is past the limit (ask for fewer tokens, or have the limit raised)"
                 : fmt::format("; try again in {}", format_reset(refusal.retry_after_ms));
  return {.status = 429,
          .message = std::move(message),
          .type = money ? "insufficient_quota" : rule.unit == Unit::kRequests ? "requests" : "tokens",
          .code = money ? "insufficient_quota" : "rate_limit_exceeded",
          .retry_after_ms = static_cast<int>(std::min(refusal.retry_after_ms, kRetryMaxMs))};
}

}  // namespace capstan::gateway

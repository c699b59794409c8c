// How: take() remembers what was asked for; finish() looks for the rest. Dates become days by counting,
// without the C library's time zone.
#include "api/body.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/text.h"
#include "workload/quantity.h"

namespace capstan::api {
namespace {

constexpr std::int64_t kTimeMax = 253'402'300'799'999;  // the end of the year 9999

// Exactly `digits` digits from the front of `text`.
std::optional<int> take_digits(std::string_view& text, std::size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, std::string_view allowed) {
  if (text.empty() || !allowed.contains(text.front())) return false;
  text.remove_prefix(1);
  return true;
}

// "2026-11-24T09:00[:00][Z]"
std::optional<std::int64_t> parse_date(std::string_view text) {
  const auto year = take_digits(text, 4);
  if (!year || !take(text, "-")) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take(text, "-")) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day || !take(text, "T ")) return std::nullopt;
  const auto hour = take_digits(text, 2);
  if (!hour || !take(text, ":")) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute) return std::nullopt;
  std::optional<int> second = 0;
  if (take(text, ":")) second = take_digits(text, 2);
  (void)take(text, "Z");
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!second || !text.empty() || !date.ok() || *hour > 23 || *minute > 59 || *second > 59)
    return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return (days * 86'400 + *hour * 3'600 + *minute * 60 + *second) * 1'000;
}

}  // namespace

Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ms) {
  if (text == "now") return now_ms;
  if (text.starts_with('+')) {
    CAPSTAN_TRY(const std::int64_t after_ms, workload::parse_duration_ms(text.substr(1)));
    std::int64_t at = 0;
    if (!__builtin_add_overflow(now_ms, after_ms, &at) && at <= kTimeMax) return at;
  } else if (const auto date = parse_date(text)) {
    return *date;
  }
  return fail(Code::kInvalid, "'{}' is no time; write now, +2h30m, or 2026-11-24T09:00Z (UTC)", text);
}

Body::Body(const http::Request& request, std::int64_t now_ms) : now_ms_(now_ms) {
  auto parsed = Json::parse(request.body.empty() ? "{}" : request.body);
  if (!parsed) {
    result_ = std::unexpected(parsed.error());
  } else if (!parsed->is_object()) {
    result_ = fail(Code::kInvalid, "the body must be a JSON object, not {}", parsed->type_name());
  } else {
    json_ = *std::move(parsed);
  }
}

const Json* Body::peek(std::string_view key) const {
  const Json* value = json_.find(key);
  return value != nullptr && !value->is_null() ? value : nullptr;
}

const Json* Body::take(std::string_view key) {
  known_.push_back(key);
  return peek(key);
}

void Body::wrong(std::string_view key, std::string message) {
  if (result_)
    result_ = std::unexpected(Error{Code::kInvalid, fmt::format("'{}' {}", key, message), std::string(key)});
}

void Body::read(std::string_view key, std::string& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (!value->is_string()) return wrong(key, fmt::format("must be a string, not {}", value->type_name()));
  out = value->as_string();
}

void Body::read(std::string_view key, std::int64_t& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (!value->is_int()) return wrong(key, fmt::format("must be an integer, not {}", value->type_name()));
  out = value->as_int();
}

void Body::read(std::string_view key, bool& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (!value->is_bool()) return wrong(key, fmt::format("must be true or false, not {}", value->type_name()));
  out = value->as_bool();
}

void Body::read(std::string_view key, std::vector<std::string>& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (!value->is_array()) return wrong(key, fmt::format("must be an array, not {}", value->type_name()));
  for (const Json& item : value->items()) {
    if (!item.is_string()) return wrong(key, "must hold strings only");
    out.push_back(item.as_string());
  }
}

void Body::read(std::string_view key, std::vector<std::int64_t>& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (!value->is_array()) return wrong(key, fmt::format("must be an array, not {}", value->type_name()));
  for (const Json& item : value->items()) {
    if (!item.is_int()) return wrong(key, "must hold integers only");
    out.push_back(item.as_int());
  }
}

void Body::read_time(std::string_view key, std::int64_t& out) {
  read_quantity(
      key, [&](std::string_view text) { return parse_time(text, now_ms_); }, out);
}

void Body::read_duration(std::string_view key, std::int64_t& out_ms) {
  read_quantity(key, &workload::parse_duration_ms, out_ms);
}

void Body::read_quantity(std::string_view key,
                         const std::function<Result<std::int64_t>(std::string_view)>& parse,
                         std::int64_t& out) {
  const Json* value = take(key);
  if (value == nullptr) return;
  if (value->is_int()) {
    out = value->as_int();
    return;
  }
  if (!value->is_string())
    return wrong(key, fmt::format("must be a string or milliseconds, not {}", value->type_name()));
  if (const auto quantity = parse(value->as_string())) {
    out = *quantity;
  } else if (result_) {
    result_ = std::unexpected(
        Error{Code::kInvalid, fmt::format("'{}': {}", key, quantity.error().message), std::string(key)});
  }
}

void Body::need_time(std::string_view key, std::int64_t& out) {
  if (peek(key) == nullptr) wrong(key, "is missing");
  read_time(key, out);
}

Result<void> Body::finish() {
  if (json_.is_object()) {
    for (const auto& [key, value] : json_.members()) {
      if (std::ranges::find(known_, key) != known_.end()) continue;
      const auto near = nearest(key, known_);
      wrong(key, near ? fmt::format("is unknown; did you mean '{}'?", *near)
                      : fmt::format("is unknown; known are {}", fmt::join(known_, ", ")));
    }
  }
  return result_;
}

}  // namespace capstan::api

#include "workload/quantity.h"

#include <array>
#include <limits>
#include <optional>

#include "base/text.h"

namespace capstan::workload {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

constexpr std::array<Unit, 13> kByteUnits{{{"KiB", 1ll << 10},
                                           {"MiB", 1ll << 20},
                                           {"GiB", 1ll << 30},
                                           {"TiB", 1ll << 40},
                                           {"Ki", 1ll << 10},
                                           {"Mi", 1ll << 20},
                                           {"Gi", 1ll << 30},
                                           {"Ti", 1ll << 40},
                                           {"kB", 1'000},
                                           {"MB", 1'000'000},
                                           {"GB", 1'000'000'000},
                                           {"TB", 1'000'000'000'000},
                                           {"B", 1}}};
constexpr std::array<Unit, 5> kTimeUnits{
    {{"ms", 1}, {"s", 1'000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Takes digits, and up to three decimals if `thousandths` may not be exact otherwise, from the front of
// `text`. The value is in thousandths. nullopt: no number, too many decimals, or too large.
std::optional<std::int64_t> take_thousandths(std::string_view& text) {
  std::int64_t value = 0;
  std::size_t i = 0;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    if (value > std::numeric_limits<std::int64_t>::max() / 100'000) return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  if (i == 0) return std::nullopt;
  value *= 1000;
  if (i < text.size() && text[i] == '.') {
    std::int64_t place = 100;
    const std::size_t first = ++i;
    for (; i < text.size() && is_digit(text[i]); ++i, place /= 10) {
      if (place == 0) return std::nullopt;
      value += (text[i] - '0') * place;
    }
    if (i == first) return std::nullopt;
  }
  text.remove_prefix(i);
  return value;
}

// thousandths × factor / 1000, refused where it is not whole or overflows.
std::optional<std::int64_t> scaled(std::int64_t thousandths, std::int64_t factor) {
  const __int128 product = static_cast<__int128>(thousandths) * factor;
  if (product % 1000 != 0 || product / 1000 > std::numeric_limits<std::int64_t>::max()) return std::nullopt;
  return static_cast<std::int64_t>(product / 1000);
}

}  // namespace

Result<std::int64_t> parse_milli_cpus(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_thousandths(rest);
  if (number && rest.empty()) return *number;
  if (number && rest == "m" && *number % 1000 == 0) return *number / 1000;
  return fail(Code::kInvalid, "'{}' is not a number of cpus; write for example 2, 0.5 or 500m", text);
}

Result<std::int64_t> parse_milli_gpus(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_thousandths(rest);
  if (!number || !rest.empty()) {
    return fail(Code::kInvalid, "'{}' is not a number of GPUs; write for example 8, 1 or 0.25", text);
  }
  if (*number > 1000 && *number % 1000 != 0) {
    return fail(Code::kInvalid, "'{}' is neither whole GPUs nor a share of one; write {}, {} or less than 1",
                text, *number / 1000, *number / 1000 + 1);
  }
  return *number;
}

Result<std::int64_t> parse_bytes(std::string_view text) {
  std::string_view rest = text;
  if (const auto number = take_thousandths(rest)) {
    if (rest.empty() && *number % 1000 == 0) return *number / 1000;
    rest = trim(rest);
    for (const Unit& unit : kByteUnits) {
      if (rest != unit.name) continue;
      if (const auto bytes = scaled(*number, unit.factor)) return *bytes;
    }
  }
  return fail(Code::kInvalid, "'{}' is not an amount of memory; write for example 512MiB, 2GiB or 1GB", text);
}

Result<std::int64_t> parse_duration_ms(std::string_view text) {
  std::string_view rest = text;
  std::int64_t total = 0;
  bool first = true;
  while (!rest.empty() || first) {
    const auto number = take_thousandths(rest);
    if (!number) break;
    if (rest.empty() && first) return *number;  // a plain number: seconds
    first = false;
    const Unit* found = nullptr;
    for (const Unit& unit : kTimeUnits) {
      // "ms" stands before "m" in the table, so the longer name is tried first.
      if (rest.starts_with(unit.name) && found == nullptr) found = &unit;
    }
    if (found == nullptr) break;
    rest.remove_prefix(found->name.size());
    const auto part = scaled(*number, found->factor);
    if (!part || __builtin_add_overflow(total, *part, &total)) break;
    if (rest.empty()) return total;
  }
  return fail(Code::kInvalid, "'{}' is not a duration; write for example 500ms, 30s, 10m or 1h30m", text);
}

std::string format_milli_cpus(std::int64_t milli_cpus) {
  if (milli_cpus % 1000 == 0) return fmt::format("{}", milli_cpus / 1000);
  std::string text = fmt::format("{}.{:03}", milli_cpus / 1000, milli_cpus % 1000);
  while (text.back() == '0') text.pop_back();
  return text;
}

std::string format_milli_gpus(std::int64_t milli_gpus) { return format_milli_cpus(milli_gpus); }

std::string format_bytes(std::int64_t bytes) {
  constexpr std::array<Unit, 4> kBinary{
      {{"TiB", 1ll << 40}, {"GiB", 1ll << 30}, {"MiB", 1ll << 20}, {"KiB", 1ll << 10}}};
  for (const Unit& unit : kBinary) {
    if (bytes >= unit.factor && bytes % unit.factor == 0)
      return fmt::format("{}{}", bytes / unit.factor, unit.name);
  }
  return fmt::format("{}", bytes);
}

std::string format_duration_ms(std::int64_t duration_ms) {
  if (duration_ms == 0) return "0s";
  std::string text;
  for (const Unit& unit : {kTimeUnits[4], kTimeUnits[3], kTimeUnits[2], kTimeUnits[1], kTimeUnits[0]}) {
    if (const std::int64_t whole = duration_ms / unit.factor; whole > 0)
      text += fmt::format("{}{}", whole, unit.name);
    duration_ms %= unit.factor;
  }
  return text;
}

}  // namespace capstan::workload

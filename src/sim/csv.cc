// How it works: one line is cut into cells that point into the text; nothing is copied but the column names.
#include "sim/csv.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::sim {
namespace {

constexpr std::size_t kShownMax = 40;  // characters of a wrong cell in a message

std::string shown(std::string_view cell) {
  return cell.size() <= kShownMax ? std::string(cell) : std::string(cell.substr(0, kShownMax)) + "...";
}

}  // namespace

std::optional<std::int64_t> parse_decimal(std::string_view text, std::int64_t per_unit) {
  constexpr std::int64_t kWholeMax = INT64_MAX / 10'000'000;  // per_unit is at most a million
  CAPSTAN_ASSERT(per_unit >= 1 && per_unit <= 1'000'000);
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const std::size_t point = std::min(text.find('.'), text.size());
  const std::string_view decimals = text.substr(std::min(point + 1, text.size()));
  if (point + decimals.size() == 0) return std::nullopt;
  std::int64_t value = 0;
  for (const char c : text.substr(0, point)) {
    if (c < '0' || c > '9' || value > kWholeMax / 10) return std::nullopt;
    value = value * 10 + (c - '0');
  }
  value *= per_unit;
  for (const char c : decimals) {
    if (c < '0' || c > '9') return std::nullopt;
    per_unit /= 10;
    value += per_unit * (c - '0');
  }
  return negative ? -value : value;
}

Result<Csv> Csv::open(std::string_view text, std::string_view source) {
  Csv out;
  out.source_ = source;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  out.rest_ = text;
  CAPSTAN_TRY(const bool any, out.read_line());
  if (!any) return fail(Code::kInvalid, "{}:1: the file is empty; its first line must name the columns", source);
  for (const std::string_view cell : out.cells_) {
    std::string name = to_lower(trim(cell));
    if (std::ranges::find(out.columns_, name) != out.columns_.end())
      return out.wrong("two columns are called '{}'", shown(name));
    out.columns_.push_back(std::move(name));
  }
  return out;
}

std::optional<std::size_t> Csv::find(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names) {
    const auto at = std::ranges::find(columns_, name);
    if (at != columns_.end()) return static_cast<std::size_t>(at - columns_.begin());
  }
  return std::nullopt;
}

std::optional<std::size_t> Csv::find_prefix(std::string_view prefix) const {
  const auto at = std::ranges::find_if(columns_, [&](const std::string& name) { return name.starts_with(prefix); });
  if (at == columns_.end()) return std::nullopt;
  return static_cast<std::size_t>(at - columns_.begin());
}

// The cells of the next line that is neither empty nor a remark.
Result<bool> Csv::read_line() {
  std::string_view line;
  do {
    if (rest_.empty()) return false;
    const std::size_t end = std::min(rest_.find('\n'), rest_.size());
    line = trim(rest_.substr(0, end));
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    ++line_;
  } while (line.empty() || line.front() == '#');
  cells_.clear();
  for (;;) {
    std::size_t end;
    if (line.starts_with('"')) {
      const std::size_t quote = line.find('"', 1);
      if (quote == line.npos) return wrong("a cell begins with a quote and does not end with one");
      cells_.push_back(line.substr(1, quote - 1));
      end = quote + 1;
      if (end < line.size() && line[end] != ',') return wrong("a comma must follow the quote that ends a cell");
    } else {
      end = std::min(line.find(','), line.size());
      cells_.push_back(trim(line.substr(0, end)));
    }
    if (end >= line.size()) return true;
    line.remove_prefix(end + 1);
  }
}

Result<bool> Csv::next() {
  CAPSTAN_TRY(const bool any, read_line());
  if (any && cells_.size() != columns_.size())
    return wrong("the row has {} cells, but the first line names {} columns", cells_.size(), columns_.size());
  return any;
}

Result<std::int64_t> Csv::integer(std::size_t column) const {
  const auto value = parse_decimal(cells_[column], 1);
  if (!value || *value < 0) {
    return wrong("'{}' must be a whole number that is not negative, such as 8, not '{}'", columns_[column],
                 shown(cells_[column]));
  }
  return *value;
}

Result<std::int64_t> Csv::seconds(std::size_t column, std::int64_t per_second) const {
  const auto value = parse_decimal(cells_[column], per_second);
  if (!value) return wrong("'{}' must be seconds, such as 17 or 4.25, not '{}'", columns_[column], shown(cells_[column]));
  return *value;
}

}  // namespace capstan::sim

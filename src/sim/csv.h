// Csv: a text of comma-separated rows under one row of column names, read a row at a time; messages say file:line.
//
//   CAPSTAN_TRY(Csv csv, Csv::open(text, "philly.csv"));
//   const auto gpus = csv.find({"gpus", "num_gpu"});
//   for (;;) {
//     CAPSTAN_TRY(const bool any, csv.next());
//     if (!any) break;
//     CAPSTAN_TRY(const std::int64_t n, csv.integer(*gpus));
//   }
//
// A cell may stand in double quotes, then commas are part of it; quotes inside a cell and line breaks in quotes are refused.
// Empty lines and lines that begin with '#' are skipped.  The text must outlive the reader.  Threads: one owner.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/assert.h"
#include "base/result.h"

namespace capstan::sim {

class Csv {
 public:
  // Reads the column names. kInvalid if there are none.
  static Result<Csv> open(std::string_view text, std::string_view source);

  // The first of these names that is a column.
  std::optional<std::size_t> find(std::initializer_list<std::string_view> names) const;
  std::optional<std::size_t> find_prefix(std::string_view prefix) const;
  const std::vector<std::string>& columns() const { return columns_; }

  // The next row; false: there is none. A row of another length is refused.
  Result<bool> next();
  int line() const { return line_; }
  std::string_view cell(std::size_t column) const { return cells_[column]; }
  // A whole number ("8", "8.0": decimals are cut), at least 0.
  Result<std::int64_t> integer(std::size_t column) const;
  // Decimal seconds ("4.3146") × `per_second`, cut; may be negative.
  Result<std::int64_t> seconds(std::size_t column, std::int64_t per_second) const;
  // kInvalid "file:line: …", about this row.
  template <class... Args>
  std::unexpected<Error> wrong(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(Code::kInvalid, "{}:{}: {}", source_, line_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  Result<bool> read_line();

  std::string_view rest_;
  std::string source_;
  int line_ = 0;
  std::vector<std::string> columns_;
  std::vector<std::string_view> cells_;
};

// Decimal text × `per_unit` (a power of ten up to a million), cut towards zero; nullopt: no decimal number, or too large.
std::optional<std::int64_t> parse_decimal(std::string_view text, std::int64_t per_unit);

}  // namespace capstan::sim

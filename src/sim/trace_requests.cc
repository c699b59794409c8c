// How it works: three columns and, with Mooncake, a cell of numbers between blanks.
#include <algorithm>

#include "base/text.h"
#include "sim/csv.h"
#include "sim/traces.h"

namespace capstan::sim {
namespace {

Result<void> read_blocks(const Csv& csv, std::size_t column, std::vector<std::uint32_t>& out) {
  for (std::string_view rest = csv.cell(column); !rest.empty();) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    const auto id = parse_int(rest.substr(0, end));
    if (!id || *id < 0 || *id > UINT32_MAX)
      return csv.wrong("'{}' must be numbers between blanks, such as '0 1 2'", csv.columns()[column]);
    out.push_back(static_cast<std::uint32_t>(*id));
    rest = trim(rest.substr(end));
  }
  return {};
}

}  // namespace

Result<std::vector<Request>> parse_requests(std::string_view text, std::string_view source, std::int64_t rows_max) {
  CAPSTAN_TRY(Csv csv, Csv::open(text, source));
  const auto arrival = csv.find({"arrival_s"});
  const auto input = csv.find({"input_tokens"});
  const auto output = csv.find({"output_tokens"});
  const auto blocks = csv.find_prefix("hash_ids");
  if (!input || !output) {
    return csv.wrong("requests need the columns 'input_tokens' and 'output_tokens' (there are: {})",
                     fmt::join(csv.columns(), ", "));
  }
  std::vector<Request> out;
  while (rows_max == 0 || static_cast<std::int64_t>(out.size()) < rows_max) {
    CAPSTAN_TRY(const bool any, csv.next());
    if (!any) break;
    Request& request = out.emplace_back();
    if (arrival) {
      CAPSTAN_TRY(request.time_us, csv.seconds(*arrival, 1'000'000));
    }
    CAPSTAN_TRY(request.input_tokens, csv.integer(*input));
    CAPSTAN_TRY(request.output_tokens, csv.integer(*output));
    if (blocks) CAPSTAN_CHECK(read_blocks(csv, *blocks, request.blocks));
  }
  if (out.empty()) return csv.wrong("there are no requests after the column names");
  std::ranges::stable_sort(out, {}, &Request::time_us);
  const std::int64_t first_us = out.front().time_us;
  for (Request& request : out) request.time_us -= first_us;
  return out;
}

Result<std::vector<Request>> read_requests(const std::filesystem::path& path, std::int64_t rows_max) {
  CAPSTAN_TRY(const std::string text, read_text_file(path));
  return parse_requests(text, path.string(), rows_max);
}

}  // namespace capstan::sim

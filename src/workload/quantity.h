// Quantities as people write them in specs, read into integers without floating point.
//
//   cpus      "2", "0.5", "500m"                 -> milli-CPUs
//   gpus      "8", "0.25"                        -> thousandths of a GPU: whole ones, or less than one
//   memory    "512MiB", "2Gi", "1GB", "4096"     -> bytes
//   duration  "500ms", "30s", "10m", "1h30m", "2d", plain number = seconds -> milliseconds
//
// Failure: kInvalid with what would be right.  The format functions give the shortest text that reads back
// equal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace capstan::workload {

Result<std::int64_t> parse_milli_cpus(std::string_view text);
Result<std::int64_t> parse_milli_gpus(std::string_view text);
Result<std::int64_t> parse_bytes(std::string_view text);
Result<std::int64_t> parse_duration_ms(std::string_view text);

std::string format_milli_cpus(std::int64_t milli_cpus);
std::string format_milli_gpus(std::int64_t milli_gpus);
std::string format_bytes(std::int64_t bytes);
std::string format_duration_ms(std::int64_t duration_ms);

}  // namespace capstan::workload
